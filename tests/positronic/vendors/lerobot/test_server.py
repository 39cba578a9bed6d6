import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from positronic import cli
from positronic.errors import ServerGone
from positronic.offboard.client import InferenceClient
from positronic.offboard.listen import bind
from positronic.vendors.lerobot import codecs
from positronic.vendors.lerobot.policy import act_absolute
from positronic.vendors.lerobot.server import _set_threads, serve
from tests.positronic.offboard.serving import ask, raw, ready
from tests.positronic.vendors.lerobot.small_policy import FPS, STEPS, make_run, observation

pytestmark = pytest.mark.xdist_group("lerobot")

COMMAND = (sys.executable, "-m", "positronic.vendors.lerobot.server")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "stacking", codecs.eepose_state())


class Running:
    """The command in a process of its own."""

    def __init__(self, *flags: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "--port=0", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert self.process.stdout is not None
        self.first = self.process.stdout.readline()
        match = re.search(r":(\d+)$", self.first.strip())
        assert match, self.process.communicate()
        self.port = int(match[1])

    def wait_until_ready(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


@contextlib.contextmanager
def running(*flags: str) -> Iterator[Running]:
    server = Running(*flags)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.communicate()


@pytest.fixture(scope="module")
def server(run: Path) -> Iterator[Running]:
    with running(
        f"--checkpoints_dir={run}/", "--codec=@positronic.vendors.lerobot.codecs.eepose_state"
    ) as server:
        line = server.wait_until_ready()
        assert re.fullmatch(
            rf"serving act 020000 on http://127\.0\.0\.1:{server.port} \(ready in \d+\.\d s\)\n",
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
            "action_fps": FPS,
            "action_horizon_sec": STEPS / FPS,
            "image_sizes": {},
            "local_stack": {"seq": [{"name": "chunked_schedule"}]},
            "compress_images": False,
        }


@pytest.mark.parametrize(
    ("path", "step"), [("", "020000"), ("/10000", "010000"), ("/010000", "010000")]
)
def test_served_actions_are_those_of_the_policy_in_process(
    server: Running, run: Path, path: str, step: str
) -> None:
    policy = act_absolute(checkpoints_dir=str(run), checkpoint=step, device="cpu")
    with raw(server.port, f"/api/v1/session{path}") as session:
        assert ready(session)["checkpoint_id"] == step
        for seed in range(3):
            served = ask(session, **observation(seed))["result"]
            expected = policy.infer(observation(seed))
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


def test_sigterm_ends_it_cleanly_and_its_clients_know(run: Path) -> None:
    with running(f"--checkpoints_dir={run / 'checkpoints'}", "--checkpoint=10000") as server:
        assert server.wait_until_ready().startswith("serving act 010000 on ")
        with InferenceClient("127.0.0.1", server.port).new_session() as session:
            assert session.infer(observation())
            code, out, err = server.stop()
            assert (code, out) == (0, "")
            assert "Traceback" not in err
            with pytest.raises(ServerGone, match="closed with 1012"):
                session.infer(observation())


def test_ctrl_c_while_it_loads_ends_it_at_once(run: Path) -> None:
    with running(f"--checkpoints_dir={run}") as server:
        said: list[str] = []
        began = time.monotonic()
        client = InferenceClient("127.0.0.1", server.port, on_status=said.append)
        time.sleep(0.2)
        code, _, err = server.stop(signal.SIGINT)
        assert code in (0, 130)
        assert "Traceback" not in err
        assert time.monotonic() - began < 15
        assert client.port == server.port


def refused(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """The one line with which the command refuses."""
    status = cli.status(
        serve, "server", [*flags, "--port=0"] if "--port" not in str(flags) else flags
    )
    captured = capsys.readouterr()
    assert status == 1
    lines = captured.err.splitlines()
    assert len(lines) == 1
    assert "serving" not in captured.out
    return lines[0]


def test_what_is_wrong_with_the_directory_is_said_in_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "is no directory" in refused(capsys, f"--checkpoints_dir={tmp_path}/none")
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
        "heavy = {'torch', 'lerobot', 'fastapi', 'uvicorn', 'mujoco', 'pyarrow'}\n"
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


@pytest.mark.parametrize("images", [True, False])
def test_threads_fit_the_work_unless_the_operator_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, images: bool
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)))
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    _set_threads(images)
    assert os.environ["OMP_NUM_THREADS"] == ("4" if images else "1")
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    _set_threads(images)
    assert os.environ["OMP_NUM_THREADS"] == "3"
