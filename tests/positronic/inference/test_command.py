import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from foundation import storage
from positronic.dataset import DatasetWriter, LocalDataset
from positronic.simulator import gl
from tests.positronic.inference.commands import (
    EXPERT,
    HOLD,
    PLANNER,
    ROOT,
    SMALL,
    expert_server,
    remote,
    run,
)
from tests.terminal import terminal
from tests.waiting import line_of

pytestmark = pytest.mark.skipif(
    not any(gl.is_available(name) for name in ("egl", "osmesa")), reason="nothing to render with"
)


def test_rollouts_over_the_wire_are_recorded_counted_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with expert_server(0) as port:
        server = ["--policy=.remote", f"--policy.url=ws://127.0.0.1:{port}"]
        code = run(*server, "--driver.num_iterations=2", f"--output_dir={tmp_path}")
    out = capsys.readouterr().out
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("1/2  seed 100000  success")
    assert "steps  return 1.00  inference" in lines[0]
    assert "ms max" in lines[0]
    assert "success rate 2/2 = 100.0 % (95 % Wilson interval 34.2 … 100.0)" in out
    assert "mean length" in out
    assert "p95" in out
    assert f"report: file://{tmp_path}/report.html" in out
    episodes = LocalDataset(tmp_path)
    assert [episode["eval.seed"] for episode in episodes] == [100000, 100001]
    assert episodes[0]["inference.policy.server.type"] == "expert"
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["summary"]["success_rate"] == 1.0
    assert results["run"]["policy"]["type"] == "expert"
    assert results["contract"]["inputs"] == ["robot_state.ee_pose", "grip", "object_poses"]
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:video/mp4;base64,") == 2


def test_the_same_seeds_give_the_same_results_and_lose_no_earlier_ones(tmp_path: Path) -> None:
    words = ["--driver.num_iterations=2", "--seed=7", f"--output_dir={tmp_path}"]
    assert run(EXPERT, *words, "--report_videos=0") == 0
    first = json.loads((tmp_path / "results.json").read_text())
    assert run(HOLD, *words, "--driver.simulation_time=0.4", "--report_videos=1") == 0
    assert run(EXPERT, *words, "--report_videos=0") == 0
    again = json.loads((tmp_path / "results.json").read_text())
    assert first.pop("run") != again.pop("run")
    assert first == again
    assert len(LocalDataset(tmp_path)) == 6
    earlier = sorted(path.name for path in tmp_path.glob("results-*.json"))
    assert len(earlier) == 2
    assert len(list(tmp_path.glob("report-*.html"))) == 2
    rates = {json.loads((tmp_path / n).read_text())["summary"]["success_rate"] for n in earlier}
    assert rates == {0.0, 1.0}
    assert not list(tmp_path.glob(".*"))


def test_a_server_that_dies_mid_episode_costs_no_recorded_rollout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with expert_server(60) as port:
        code = run(*remote(port), "--driver.num_iterations=5", f"--output_dir={tmp_path}")
    captured = capsys.readouterr()
    assert code == 1
    (line,) = [x for x in captured.err.splitlines() if x.startswith("positronic-inference")]
    assert "error:" in line
    assert "went away" in line
    episodes = LocalDataset(tmp_path)
    assert [episode["eval.ended_by"] for episode in episodes] == ["success", "server_gone"]
    assert all(len(episode.signals["image.wrist"].values()) for episode in episodes)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["summary"]["finished"] == 1
    assert results["summary"]["success_rate"] == 1.0
    assert results["summary"]["ended_by"] == {"server_gone": 1, "success": 1}
    assert "went away" in results["run"]["error"]
    page = (tmp_path / "report.html").read_text()
    assert "stopped early" in page
    assert page.count("data:video/mp4;base64,") == 2
    assert "not counted: 1" in captured.out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_its_report(tmp_path: Path, number: signal.Signals) -> None:
    words = [HOLD, SMALL, "--driver.num_iterations=99", "--driver.simulation_time=3"]
    process = subprocess.Popen(
        [sys.executable, "-m", "positronic.inference", "sim", *words, f"--output_dir={tmp_path}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    assert line_of(process.stdout, "the first rollout").startswith(" 1/99")
    time.sleep(0.1)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert "success rate 0/" in out
    endings = {episode["eval.ended_by"] for episode in LocalDataset(tmp_path)}
    assert endings <= {"timeout", "interrupted"}
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["run"]["error"] == "interrupted"
    assert 1 <= len(results["episodes"]) == len(LocalDataset(tmp_path)) < 50
    assert (tmp_path / "report.html").exists()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.e2e
@pytest.mark.parametrize("num_envs", [1, 2])
def test_a_closed_terminal_loses_nothing_either(tmp_path: Path, num_envs: int) -> None:
    words = [HOLD, SMALL, "--driver.num_iterations=99", "--driver.simulation_time=3"]
    code = "from positronic.inference.command import main; main()"
    with terminal(
        code, "sim", *words, f"--num_envs={num_envs}", f"--output_dir={tmp_path}"
    ) as screen:
        screen.wait_for("1/99")
        screen.close()
        assert screen.status() == 128 + signal.SIGHUP
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["run"]["error"] == "interrupted"
    assert 1 <= len(results["episodes"]) == len(LocalDataset(tmp_path)) < 99
    assert (tmp_path / "report.html").exists()
    assert not list(tmp_path.glob(".*"))


def test_no_server_is_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(*remote("9"), "--policy.connect_timeout=0.2", f"--output_dir={tmp_path}/new")
    assert code == 1
    assert "no inference server at ws://127.0.0.1:9" in capsys.readouterr().err
    assert not list((tmp_path / "new").iterdir())


def test_home_is_expanded_and_no_display_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    words = ["--driver.simulation_time=0.2", "--driver.show_gui=True", "--report_videos=0"]
    assert run(HOLD, *words, "--output_dir=~/logs", "--cameras=image.exterior") == 0
    assert "no camera window: there is no display" in capsys.readouterr().out
    (episode,) = LocalDataset(tmp_path / "logs")
    assert [name for name in episode.signals if name.startswith("image.")] == ["image.exterior"]


def test_without_a_directory_nothing_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(HOLD, "--driver.simulation_time=0.2", "--cameras=") == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "nothing will be recorded; --output_dir=DIR keeps episodes and a report"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "choose a policy"),
        (["--policy=remote"], "--policy=remote is not a policy (did you mean '.remote'?)"),
        (["--policy=HOST"], "--policy=HOST is not a policy; give .act_absolute, .remote, ws://HOS"),
        (["--policy=/no/such"], "--policy=/no/such: there is no such directory"),
        (["--policy=7"], "--policy=7 is not a policy"),
        (["--policy=@positronic.geom.yaw"], "--policy makes a function, not a policy"),
        (["--policy=@positronic.cfg.driver.timed"], "--policy makes a Timed, not a policy"),
        (["--policy.port=8313"], "--policy.port: choose --policy=.remote first"),
        ([HOLD, "--driver=asynchronous"], "--driver=asynchronous is not a driver; give .timed"),
        ([HOLD, "--driver=@positronic.cfg.player.synchronous"], "--driver makes a partial, not"),
        ([HOLD, "--player=@positronic.cfg.driver.timed"], "--player makes a Timed, not a player"),
        ([HOLD, "--env=stack_cube"], "did you mean 'stack_cubes'"),
        ([HOLD, "--driver.num_iterations=0"], "expected 1 or more"),
        ([HOLD, "--driver.simulation_time=0"], "expected more than 0 s"),
        ([HOLD, "--cameras=image.wirst"], "unknown camera 'image.wirst'"),
        ([HOLD, "--image_size=big"], "expected HEIGHT,WIDTH"),
        ([HOLD, "--driver.num_iteration=3"], "there is no flag"),
        ([HOLD, "--num_envs=0"], "expected 1 or more"),
        ([HOLD, "--seed=-1"], "--seed is -1; expected 0 or more"),
        ([HOLD, "--inference_delay=-0.1"], "expected seconds such as 0.2"),
        ([HOLD, "--inference_delay=[0,0]"], "expected seconds such as 0.2"),
        ([HOLD, "--player=.asynchronus"], "did you mean '.asynchronous'"),
        ([HOLD, "--video=True"], "give --output_dir=DIR or --video=DIR"),
        ([HOLD, "--video=films", "--cameras=none"], "there are no --cameras"),
        ([HOLD, "--num_envs=2", "--driver.show_gui=True"], "leave out --num_envs"),
    ],
)
def test_bad_flags_are_named(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_file_in_the_way_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taken").write_text("mine")
    assert run(HOLD, f"--output_dir={tmp_path}/taken") == 1
    assert "a file is in the way" in capsys.readouterr().err
    assert (tmp_path / "taken").read_text() == "mine"


def test_demonstrations_are_not_mixed_with_rollouts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A failed rollout among them would be learned from."""
    with DatasetWriter(tmp_path / "raw").new_episode() as episode:
        episode.set_static("eval.success", True)
        episode.append("grip", 1.0, 0)
    assert run(HOLD, "--driver.simulation_time=0.2", f"--output_dir={tmp_path}/raw") == 1
    assert "holds recordings that are not rollouts" in capsys.readouterr().err
    assert len(LocalDataset(tmp_path / "raw")) == 1


def test_help_is_quick() -> None:
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "positronic.inference", "sim", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert time.perf_counter() - began < 10
    assert "--driver.num_iterations=1" in done.stdout
    for module in ("mujoco", "av", "pyarrow", "torch", "gymnasium", "glfw"):
        assert not re.search(rf"\|\s+{module}$", done.stderr, re.MULTILINE), module
    assert re.search(r"\|\s+configuronic$", done.stderr, re.MULTILINE)


def test_rollouts_and_films_go_to_s3(
    s3: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = "s3://bucket/rollouts"
    words = ["--driver.num_iterations=1", "--driver.simulation_time=0.4", f"--output_dir={place}"]
    for video in ("True", "s3://bucket/films"):
        assert run(HOLD, *words, f"--video={video}") == 0
        assert f"report: {place}/report.html" in capsys.readouterr().out
    fetched = storage.fetch(place)
    assert len(LocalDataset(fetched)) == 2
    first, second = sorted(fetched.glob("results*.json"))  # "results-..." comes before "results."
    films = []
    for path in (first, second):
        (episode,) = json.loads(path.read_text())["run"]["episodes"]
        assert storage.listing(episode["path"])
        assert episode["path"].startswith(f"{place}/")
        assert storage.read_bytes(episode["video"])[4:8] == b"ftyp"
        films.append(episode["video"])
    assert films[0].startswith(f"{place}/videos-")
    assert films[1] == "s3://bucket/films/0-timeout.mp4"
    earlier = next(fetched.glob("report-*.html")).read_text()
    assert f'href="{films[0].removeprefix(place + "/")}"' in earlier


def test_a_film_of_each_rollout_lies_beside_the_report(tmp_path: Path) -> None:
    words = ["--driver.num_iterations=2", "--report_videos=0", f"--output_dir={tmp_path}"]
    assert run(EXPERT, "--driver.simulation_time=3.8", *words, "--video=True") == 0
    results = json.loads((tmp_path / "results.json").read_text())
    page = (tmp_path / "report.html").read_text()
    names = [f"{i}-{e['ended_by']}.mp4" for i, e in enumerate(results["episodes"])]
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == names
    for name, episode in zip(names, results["episodes"], strict=True):
        assert f'href="videos/{name}"' in page
        with av.open(tmp_path / "videos" / name) as container:
            frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
        assert len(frames) == episode["steps"] + 1
        assert frames[0].shape == (48, 132, 3)
        assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 1
    assert [e["video"] for e in results["run"]["episodes"]] == [
        f"{tmp_path}/videos/{name}" for name in names
    ]


def test_films_may_go_elsewhere_and_never_over_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [HOLD, "--driver.simulation_time=0.2", f"--video={tmp_path}/films"]
    assert run(*words) == 0
    assert [path.name for path in (tmp_path / "films").iterdir()] == ["0-timeout.mp4"]
    assert run(*words) == 1
    assert "is not empty; give a new directory" in capsys.readouterr().err


def test_an_asynchronous_player_starves_in_no_step_where_a_synchronous_one_waits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--inference_delay=[0,0.2]", "--driver.num_iterations=2", "--cameras=none"]
    runs = {}
    with expert_server(0, 15) as port:
        for name in ("synchronous", "asynchronous"):
            where = f"--output_dir={tmp_path / name}"
            assert run(*remote(port), *words, f"--player=.{name}", where, "--report_videos=0") == 0
            runs[name] = json.loads((tmp_path / name / "results.json").read_text())
    rows = {name: results["summary"]["by_delay"] for name, results in runs.items()}
    assert [row["inference_delay"] for row in rows["asynchronous"]] == [0.0, 0.2]
    assert [row["starved_steps"] for row in rows["asynchronous"]] == [0, 0]
    # Three chunks or so in a rollout, each but the first awaited for three steps of 1/15 s.
    assert rows["synchronous"][0]["starved_steps"] == 0
    assert rows["synchronous"][1]["starved_steps"] >= 12
    assert [row["successes"] for row in rows["asynchronous"]] == [2, 2]
    assert runs["asynchronous"]["player"].startswith("asynchronous")
    assert runs["asynchronous"]["inference_delays"] == [0.0, 0.2]
    episodes = LocalDataset(tmp_path / "synchronous")
    statics = [episodes[i].static for i in range(4)]
    assert [static["eval.inference_delay"] for static in statics] == [0.0] * 2 + [0.2] * 2
    starved = [static["eval.starved_steps"] for static in statics]
    assert sum(starved) == rows["synchronous"][1]["starved_steps"]
    assert statics[0]["eval.chunk_changes"] > 1
    assert 0 < statics[0]["eval.chunk_jump_mean_mm"] <= statics[0]["eval.chunk_jump_max_mm"]
    assert "delay 0.2 s: success rate 2/2 = 100.0 %" in capsys.readouterr().out
    page = (tmp_path / "asynchronous" / "report.html").read_text()
    assert "Success over inference delay" in page


def test_inference_time_is_charged_when_asked_for(tmp_path: Path) -> None:
    words = [PLANNER, "--cameras=none", "--driver.simulation_time=3", f"--output_dir={tmp_path}"]
    slow = "--policy.seconds=0.15"
    assert run(*words, slow) == 0
    assert json.loads((tmp_path / "results.json").read_text())["summary"]["starved_steps"] == 0
    assert run(*words, slow, "--charge_inference_time=True") == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["charge_inference_time"] is True
    # Each inference but the first takes three steps of 1/15 s, or more on a busy machine.
    changes = results["episodes"][0]["chunk_jumps"]["count"]
    assert results["summary"]["starved_steps"] >= 3 * changes > 0


@pytest.mark.e2e
def test_success_over_delay_is_kept_by_the_asynchronous_player(tmp_path: Path) -> None:
    words = ["--inference_delay=[0,0.2]", "--driver.num_iterations=20", "--cameras=none"]
    rows = {}
    for name in ("synchronous", "asynchronous"):
        where = [f"--player=.{name}", f"--output_dir={tmp_path}/{name}", "--report_videos=0"]
        assert run(PLANNER, *words, *where) == 0
        results = json.loads((tmp_path / name / "results.json").read_text())
        rows[name] = results["summary"]["by_delay"]
    low, high = rows["synchronous"][0]["wilson_95"]
    late = rows["asynchronous"][1]
    assert late["starved_steps"] == 0
    assert low <= late["success_rate"] <= high
    assert low > 0.8
    # The synchronous one stands still meanwhile, which takes it longer.
    assert rows["synchronous"][1]["steps"] > 1.1 * late["steps"]
