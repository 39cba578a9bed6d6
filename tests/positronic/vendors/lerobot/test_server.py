import contextlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from positronic import cli
from positronic.offboard.client import InferenceClient
from positronic.offboard.serving.process import bind
from positronic.vendors.lerobot import codecs
from positronic.vendors.lerobot.server import serve
from positronic.vendors.lerobot.serving.policy import load_policy
from tests.positronic.offboard.running import ask, get, raw, ready, receive
from tests.positronic.vendors.lerobot.small_policy import FPS, STEPS, make_run, observation
from tests.waiting import line_of

COMMAND = (sys.executable, "-m", "positronic.vendors.lerobot.server")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "stacking", codecs.eepose_state())


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what the command does to this process; begin without what an operator may have set."""
    for name in ("AUTH_TOKEN", "POSITRONIC_INSECURE"):
        monkeypatch.delenv(name, raising=False)
    root, package = logging.getLogger(), logging.getLogger("positronic")
    handlers, levels = root.handlers[:], (root.level, package.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    package.setLevel(levels[1])


def said(line: str) -> str:
    """Take what a line of the log says, in either of its forms."""
    if line.startswith("{"):
        return f"{json.loads(line)['event']}\n"
    return re.sub(r"^\d{4}-\d\d-\d\dT[\d:.]+Z info ", "", line)


class Running:
    """The command in a process of its own."""

    def __init__(self, *flags: str, command: Sequence[str] = COMMAND) -> None:
        self.process = subprocess.Popen(
            [*command, "--port=0", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert self.process.stdout is not None
        self.first = said(line_of(self.process.stdout, "the server's address"))
        match = re.search(r":(\d+)$", self.first.strip())
        assert match, self.process.communicate(timeout=60)
        self.port = int(match[1])

    def next_line(self) -> str:
        assert self.process.stdout is not None
        return said(line_of(self.process.stdout, "the server to be ready", 240))

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


@contextlib.contextmanager
def running(*flags: str, command: Sequence[str] = COMMAND) -> Iterator[Running]:
    server = Running(*flags, command=command)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.communicate(timeout=60)


@pytest.fixture(scope="module")
def server(run: Path) -> Iterator[Running]:
    with running(
        f"--checkpoints_dir={run}/",
        "--codec=@positronic.vendors.lerobot.codecs.eepose_state",
        "--watch",
        "--watch_interval=0.1",
    ) as server:
        line = server.next_line()
        assert re.fullmatch(
            rf"serving act 020000 on http://127\.0\.0\.1:{server.port} with torch float32"
            r" \(ready in \d+\.\d s\)\n",
            line,
        )
        yield server


def test_it_lists_and_serves_the_newest_checkpoint(server: Running) -> None:
    client = InferenceClient("127.0.0.1", server.port)
    assert client.models() == ["010000", "020000"]
    with client.new_session() as session:
        meta = dict(session.meta)
        assert meta.pop("contract")["codec"]["name"] == "eepose_state"
        assert meta.pop("positronic_version")
        assert meta == {
            "type": "act",
            "checkpoint_id": "020000",
            "checkpoint_path": "stacking/checkpoints/020000",
            "host": "127.0.0.1",
            "port": server.port,
            "device": meta["device"],
            "backend": "torch",
            "precision": "float32",
            "every_step": False,
            "n_obs_steps": 1,
            "request_ids": True,
            "jpeg": True,
            "session": meta["session"],
            "action_fps": FPS,
            "action_horizon_sec": STEPS / FPS,
            "image_sizes": {},
            "local_stack": {"seq": [{"name": "chunked_schedule"}, {"name": "flip_grip"}]},
            "compress_images": False,
        }


@pytest.mark.parametrize(
    ("path", "step"), [("", "020000"), ("/10000", "010000"), ("/010000", "010000")]
)
def test_served_actions_are_those_of_the_policy_in_process(
    server: Running, run: Path, path: str, step: str
) -> None:
    policy = load_policy(checkpoints_dir=str(run), checkpoint=step, device="cpu")
    native = policy.new_session()
    with raw(server.port, f"/api/v1/session{path}") as session:
        assert ready(session)["checkpoint_id"] == step
        for seed in range(3):
            served = ask(session, **observation(seed))["result"]
            expected = native.infer(observation(seed))
            assert len(served) == len(expected) == STEPS
            for one, other in zip(served, expected, strict=True):
                assert one["robot_command"]["type"] == "cartesian_pos"
                np.testing.assert_allclose(
                    one["robot_command"]["pose"], other["robot_command"]["pose"], atol=1e-5
                )
                assert one["target_grip"] == pytest.approx(other["target_grip"], abs=1e-5)
                assert one["timestamp"] == other["timestamp"]


def test_a_bad_observation_names_the_key_and_keeps_the_session(server: Running) -> None:
    with raw(server.port) as session:
        ready(session)
        obs = observation()
        grip = obs.pop("grip")
        error = ask(session, **obs)["error"]
        assert "needs grip" in error
        assert "Traceback" not in error
        error = ask(session, **{**obs, "grip": grip, "object_poses": np.zeros(7)})["error"]
        assert "object_poses" in error
        assert len(ask(session, **obs, grip=grip)["result"]) == STEPS


def test_operators_see_what_it_does(server: Running) -> None:
    assert get(server.port, "/readyz")[1]["default"] == "020000"
    assert b"positronic_infer_seconds_bucket" in get(server.port, "/metrics")[1]
    assert b"swagger-ui" in get(server.port, "/docs")[1]
    document = get(server.port, "/api/v1/status")[1]
    model = document["models"][0]
    known = (model["id"], model["type"], model["backend"], model["precision"])
    assert known == ("020000", "act", "torch", "float32")
    assert model["nbytes"] > 50_000
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < document["server"]["memory_bytes"] <= machine // 2


def test_what_training_publishes_is_served_while_it_trains(server: Running, run: Path) -> None:
    new = run / "checkpoints/030000"
    with raw(server.port) as old:
        assert ready(old)["checkpoint_id"] == "020000"
        shutil.copytree(run / "checkpoints/010000", run / "unfinished")
        (run / "unfinished").rename(new)
        try:
            while get(server.port, "/readyz")[1]["default"] != "030000":
                time.sleep(0.05)
            with raw(server.port) as session:
                assert ready(session)["checkpoint_id"] == "030000"
                assert len(ask(session, **observation())["result"]) == STEPS
            assert len(ask(old, **observation())["result"]) == STEPS
        finally:
            shutil.rmtree(new)


def test_every_flag_reaches_what_it_is_for_and_sigterm_drains(run: Path) -> None:
    flags = ["--checkpoint=10000", "--max_sessions=1", "--max_batch=2", "--batch_window_ms=1"]
    flags += ["--max_queue=3", "--model_memory_gb=0.5", "--request_timeout=9", "--rate_limit=2"]
    flags += ["--idle_timeout=99", "--drain_timeout=0.5", "--max_message_mb=0.1"]
    flags += ["--log_format=json", "--openpi_port=0", "--host=localhost", "--docs=False"]
    with running(f"--checkpoints_dir={run / 'checkpoints'}", *flags) as server:
        openpi = server.next_line()
        assert re.fullmatch(r"openpi's clients connect to localhost:\d+\n", openpi)
        assert server.next_line().startswith("serving act 010000 on http://localhost:")
        assert server.next_line().endswith(
            f"positronic-inference sim --policy=.remote --policy.host=localhost"
            f" --policy.port={server.port} --output_dir=rollouts\n"
        )
        document = get(server.port, "/api/v1/status")[1]["server"]
        assert (document["max_sessions"], document["memory_bytes"]) == (1, 500_000_000)
        assert get(server.port, "/docs") == (404, b"Not Found")
        assert get(int(openpi.rpartition(":")[2]), "/healthz") == (200, b"OK\n")
        with raw(server.port) as session:
            assert ready(session)["host"] == "localhost"
            with raw(server.port) as other:
                assert "all of its 1 sessions" in receive(other)["error"]
            errors = [ask(session, **observation()).get("error") for _ in range(3)]
            assert errors[:2] == [None, None]
            assert "more than 2 requests a second" in (errors[2] or "")
            code, out, err = server.stop()
            with pytest.raises(ConnectionClosed, match="1001"):
                session.recv()
        assert (code, out) == (0, "")
    events = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    opened = next(event for event in events if event["event"] == "opened")
    assert (opened["session"], opened["model"]) == ("s1", "010000")
    assert next(event for event in events if event["event"] == "draining")["timeout_s"] == 0.5
    assert events[-1]["event"] == "stopped"
    assert len(events) == len(err.splitlines())
    assert "Traceback" not in err


def test_ctrl_c_while_it_loads_ends_it_at_once(run: Path) -> None:
    with running(f"--checkpoints_dir={run}") as server:
        while get(server.port, "/livez")[0] != 200:
            pass
        assert get(server.port, "/readyz")[1]["reason"] == "loading checkpoint 020000"
        code, out, err = server.stop(signal.SIGINT)
    assert (code, out) == (0, "")
    assert [said(line).split()[0] for line in err.splitlines()] == ["draining", "stopped"]


def test_garbage_is_collected_again_once_it_is_ready(run: Path) -> None:
    code = (
        "import gc, signal\n"
        "from positronic.vendors.lerobot.server import main\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print(gc.isenabled(), flush=True))\n"
        "main()\n"
    )
    with running(f"--checkpoints_dir={run}", command=(sys.executable, "-c", code)) as server:
        server.process.send_signal(signal.SIGUSR1)
        assert server.next_line() == "False\n"
        assert server.next_line().startswith("serving act 020000")
        assert server.next_line().startswith("connect: ")
        server.process.send_signal(signal.SIGUSR1)
        assert server.next_line() == "True\n"


def refused(capsys: pytest.CaptureFixture[str], *flags: str, status: int = 1) -> str:
    """The one line with which the command refuses."""
    port = () if "--port" in str(flags) else ("--port=0",)
    assert cli.status(serve, "server", [*flags, *port]) == status
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert "serving" not in captured.out
    return line


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--max_sessions=0", "--max_sessions is 0; expected 1 or more"),
        ("--max_sessions=many", "--max_sessions=many"),
        ("--max_batch=0", "--max_batch is 0; expected 1 or more"),
        ("--max_queue=-1", "--max_queue is -1; expected 1 or more"),
        ("--batch_window_ms=-1", "--batch_window_ms is -1; expected 0 or more"),
        ("--batch_window_ms=1e999", "--batch_window_ms is inf; expected 0 or more"),
        ("--model_memory_gb=0", "--model_memory_gb is 0; expected more than 0"),
        ("--watch_interval=0", "--watch_interval is 0; expected more than 0"),
        ("--drain_timeout=-1", "--drain_timeout is -1; expected 0 or more"),
        ("--idle_timeout=-0.1", "--idle_timeout is -0.1; expected 0 or more"),
        ("--request_timeout=0", "--request_timeout is 0; expected more than 0"),
        ("--rate_limit=-2", "--rate_limit is -2; expected 0 or more"),
        ("--max_message_mb=0", "--max_message_mb is 0; expected more than 0"),
        ("--log_format=xml", "--log_format=xml is not a format; choose text or json"),
        ("--backend=tensorrt", "--backend=tensorrt is unknown; choose one of auto, torch"),
        ("--precision=int8", "--precision=int8 is unknown; choose one of"),
        ("--host=0.0.0.0", "--host=0.0.0.0 lets other machines connect without a token; make one"),
        ("--host=::", "--host=:: lets other machines connect without a token"),
        ("--max_session=1", "there is no flag --max_session (did you mean '--max_sessions'?)"),
    ],
)
def test_flags_that_make_no_sense_are_refused_at_once(
    run: Path, capsys: pytest.CaptureFixture[str], flag: str, says: str
) -> None:
    assert says in refused(capsys, f"--checkpoints_dir={run}", flag, status=2)


def test_the_newest_and_a_certain_checkpoint_are_not_the_default_at_once(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, f"--checkpoints_dir={run}", "--watch", "--checkpoint=10000", status=2)
    assert "--watch serves the newest checkpoint and --checkpoint=10000 another one" in line
    line = refused(capsys, "--checkpoints_dir=hf://somebody/policy", "--watch", status=2)
    assert "hf://somebody/policy is one policy; leave --watch out" in line


def test_who_may_connect_is_decided_before_anything_else(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere, everyone = "--checkpoints_dir=nowhere", "--host=0.0.0.0"
    assert "is not a directory" in refused(capsys, nowhere)
    assert "is not a directory" in refused(capsys, nowhere, everyone, "--insecure")
    assert "cannot listen on no-such-host.invalid" in refused(
        capsys, nowhere, "--host=no-such-host.invalid"
    )
    monkeypatch.setenv("POSITRONIC_INSECURE", "1")
    assert "is not a directory" in refused(capsys, nowhere, everyone)
    monkeypatch.delenv("POSITRONIC_INSECURE")
    monkeypatch.setenv("AUTH_TOKEN", "correct-horse")
    assert "is not a directory" in refused(capsys, nowhere, everyone)
    monkeypatch.setenv("AUTH_TOKEN", " ")
    assert "AUTH_TOKEN is set but empty" in refused(capsys, nowhere, status=2)


def test_what_is_wrong_with_the_directory_is_said_in_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "is not a directory" in refused(capsys, f"--checkpoints_dir={tmp_path}/none")
    assert "No checkpoints found in" in refused(capsys, f"--checkpoints_dir={tmp_path}")
    line = refused(capsys, f"--checkpoints_dir={run}", "--checkpoint=7")
    assert line == ("server: error: Checkpoint not found: 7. Available: ['010000', '020000']")
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    (broken / "checkpoints/020000/pretrained_model/model.safetensors").unlink()
    line = refused(capsys, f"--checkpoints_dir={broken}")
    assert "broken/checkpoints/020000 is incomplete: pretrained_model/model.safetensors" in line


def test_a_port_in_use_is_said_in_one_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.closing(bind("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        line = refused(capsys, f"--checkpoints_dir={run}", f"--port={port}")
    assert f"port {port} of 127.0.0.1 is in use" in line


def test_damaged_weights_end_it_with_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    shutil.copytree(run, tmp_path / "run")
    weights = tmp_path / "run/checkpoints/020000/pretrained_model/model.safetensors"
    weights.write_bytes(b"\0" * 100)
    status = cli.status(serve, "server", [f"--checkpoints_dir={tmp_path / 'run'}", "--port=0"])
    captured = capsys.readouterr()
    assert status == 1
    assert "checkpoint run/checkpoints/020000 cannot be loaded:" in captured.err.splitlines()[-1]


def test_another_codec_is_refused_before_anything_heavy_is_imported(run: Path) -> None:
    code = (
        "import sys\n"
        "from positronic import cli\n"
        "from positronic.vendors.lerobot.server import serve\n"
        "status = cli.status(serve, 'server', sys.argv[1:])\n"
        "heavy = {'torch', 'lerobot', 'fastapi', 'starlette', 'uvicorn', 'mujoco', 'pyarrow'}\n"
        "print(status, sorted(heavy & set(sys.modules)))\n"
    )
    codec = "--codec=@positronic.vendors.lerobot.codecs.joints_absolute"
    for flags, expected in (
        ([f"--checkpoints_dir={run}", codec], "1 []"),
        (["--help"], "0 []"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *flags], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == expected
    assert "--checkpoints_dir" in done.stdout
