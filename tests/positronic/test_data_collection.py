"""Recording demonstrations: what lands on the disk, and what is said about it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from foundation import storage
from positronic import cli, data_collection
from positronic.dataset import LocalDataset
from positronic.errors import SimulationError
from positronic.simulator.demonstrations import SIM_STATE, Scenario
from positronic.simulator.expert import GOALS
from tests.waiting import until

BASE = ["scripted", "--workers=1", "--cameras=none"]


def run(*words: str) -> int:
    return cli.status({"scripted": data_collection.scripted}, data_collection.PROG, list(words))


def contents(root: Path) -> list[dict[str, Any]]:
    return [
        {name: signal.values().tolist() for name, signal in episode.signals.items()}
        | {"seed": episode["simulation.seed"]}
        for episode in LocalDataset(root)
    ]


@pytest.mark.e2e
def test_the_dataset_does_not_depend_on_the_number_of_workers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*BASE, "--episodes=3", "--seed=5", f"--output_dir={tmp_path / 'one'}") == 0
    assert "3 episodes" in capsys.readouterr().out
    words = ["--workers=2", "--episodes=3", "--seed=5", f"--output_dir={tmp_path / 'two'}"]
    assert run(*BASE, *words) == 0
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert [episode["seed"] for episode in one] == [5, 6, 7]
    assert one == two
    # Nothing but the dataset is left behind, staged attempts beyond the last one included.
    assert [path.name for path in (tmp_path / "two").iterdir()] == ["000000000000"]


def test_episodes_hold_all_signals_and_replay_to_the_bit(tmp_path: Path) -> None:
    words = ["--env=pick_place", "--episodes=1", "--seed=1", "--image_size=[48,64]"]
    cameras = "--cameras=[image.wrist,image.exterior]"
    assert run(*BASE, *words, cameras, f"--output_dir={tmp_path}") == 0
    episode = LocalDataset(tmp_path)[0]
    length = len(episode["grip"])
    assert set(episode.signals) == {
        "robot_state.q",
        "robot_state.dq",
        "robot_state.ee_pose",
        "grip",
        "object_poses",
        "image.wrist",
        "image.exterior",
        "robot_commands.pose",
        "target_grip",
        SIM_STATE,
    }
    times = [(i * 10**9) // 15 for i in range(length)]
    for name, recorded in episode.signals.items():
        commanded = name in ("robot_commands.pose", "target_grip")
        assert list(recorded.timestamps()) == times[: length - 1 if commanded else length], name
    assert episode["image.wrist"][0][0].shape == (48, 64, 3)
    assert episode["task"] == "Pick up the red cube and place it in the blue tray."
    assert episode["object_names"] == ["cube", "tray"]
    assert episode["eval.success"] is True
    assert episode["grip_convention"] == {"open": 1.0, "closed": 0.0}

    from positronic import simulator

    env: Any = simulator.make(
        episode["simulation.env_id"],
        cameras=None,
        command_noise=episode["simulation.command_noise"],
    )
    env.reset(seed=episode["simulation.seed"])
    states = [env.unwrapped.sim_state()]
    for i in range(length - 1):
        action = np.append(episode["robot_commands.pose"][i][0], episode["target_grip"][i][0])
        *_, info = env.step(action)
        states.append(env.unwrapped.sim_state())
    np.testing.assert_array_equal(states, np.stack(list(episode[SIM_STATE].values())))
    assert info["is_success"]


def test_failures_are_counted_and_kept_only_when_asked(tmp_path: Path) -> None:
    # Few steps: enough for 52 to 57 (seeds 0 to 4 and 6), not for the 62 that seed 5 takes.
    scenario = Scenario("stack_cubes", {"cameras": None}, max_steps=59)
    tallies = [
        data_collection.record(scenario, tmp_path / name, episodes=6, keep_failures=keep)
        for name, keep in [("good", False), ("all", True)]
    ]
    assert tallies[0] == tallies[1]
    assert tallies[0].failures > 0
    good, everything = LocalDataset(tmp_path / "good"), LocalDataset(tmp_path / "all")
    assert [episode["eval.success"] for episode in good] == [True] * 6
    outcomes = [bool(episode["eval.success"]) for episode in everything]
    assert (outcomes.count(True), outcomes.count(False)) == (6, tallies[0].failures)
    seeds = [episode["simulation.seed"] for episode in everything]
    assert seeds == list(range(len(seeds)))


def test_a_hopeless_scenario_ends_with_a_reason(tmp_path: Path) -> None:
    scenario = Scenario("stack_cubes", {"cameras": None}, max_steps=2)
    with pytest.raises(SimulationError, match="0 of 20"):
        data_collection.record(scenario, tmp_path, episodes=1)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_in_use_is_refused_or_added_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*BASE, "--episodes=1", "--seed=3", f"--output_dir={tmp_path}"]
    assert run(*words) == 0
    assert run(*words) == 1
    assert "--append=True" in capsys.readouterr().err
    assert len(LocalDataset(tmp_path)) == 1
    assert run(*words, "--append=True") == 0
    assert [episode["simulation.seed"] for episode in LocalDataset(tmp_path)] == [3, 4]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--env=stack_cubs"], "did you mean 'stack_cubes'"),
        (["--episodes=0"], "--episodes"),
        (["--workers=-1"], "--workers"),
        (["--speed=0"], "--speed"),
        (["--cameras=[image.front]"], "image.front"),
        (["--image_size=[240]"], "image_size"),
        (["--image_size=0"], "image_size"),
        (["--cameras=1"], "unknown camera '1'"),
    ],
)
def test_bad_arguments_get_one_line_and_record_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    root = tmp_path / "new"
    assert run(*BASE, f"--output_dir={root}", *words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not root.exists()


def recording(root: Path) -> "subprocess.Popen[str]":
    """The command with two workers, which would go on for long, in a process group of its own."""
    code = "import positronic.data_collection as d; d.main()"
    words = ["scripted", "--cameras=none", "--workers=2", "--episodes=5000"]
    return subprocess.Popen(
        [sys.executable, "-c", code, *words, f"--output_dir={root}"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_task_without_an_expert_is_refused_before_workers_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Workers died of it, and the message was of memory."""
    monkeypatch.delitem(GOALS, "pick_place")
    assert run(*BASE, "--env=pick_place", f"--output_dir={tmp_path / 'raw'}") == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"{data_collection.PROG}: error: there is no scripted expert of the ")
    assert not (tmp_path / "raw").exists()


@pytest.mark.e2e
def test_ctrl_c_while_workers_begin_is_one_line(tmp_path: Path) -> None:
    """Each worker had told of it by a traceback, until its imports were done."""
    process = recording(tmp_path)
    try:
        parent = psutil.Process(process.pid)
        until(
            lambda: any("spawn_main" in " ".join(child.cmdline()) for child in parent.children()),
            "a worker",
        )
        os.killpg(process.pid, signal.SIGINT)
        error = process.communicate(timeout=120)[1]
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in error
    assert error.splitlines()[-1].endswith(": interrupted")


# `timeout -s INT` sends two at once; people press again when nothing seems to happen; `docker stop`
# and `kill` send one to the first process alone.
@pytest.mark.e2e
@pytest.mark.parametrize(
    ("signum", "times"), [(signal.SIGINT, 1), (signal.SIGINT, 3), (signal.SIGTERM, 1)]
)
def test_a_signal_keeps_what_was_published(
    tmp_path: Path, signum: signal.Signals, times: int
) -> None:
    process = recording(tmp_path)
    block = tmp_path / "000000000000"
    deadline = time.monotonic() + 120
    try:
        while not (block.is_dir() and len(list(block.iterdir())) >= 2):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        for _ in range(times):
            (os.kill if signum == signal.SIGTERM else os.killpg)(process.pid, signum)
            time.sleep(0.02)
        error = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 128 + signum
    assert "Traceback" not in error
    episodes = LocalDataset(tmp_path)
    assert len(episodes) >= 2
    seeds = [episode["simulation.seed"] for episode in episodes]
    assert seeds == sorted(seeds)
    assert [path.name for path in tmp_path.iterdir()] == ["000000000000"]


@pytest.mark.e2e
def test_recordings_go_to_s3(s3: Any, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--episodes=1", "--output_dir=s3://bucket/raw"]
    assert run(*BASE, *words) == 0
    assert "1 episodes" in (out := capsys.readouterr().out)
    assert "recordings: s3://bucket/raw\n" in out
    assert run(*BASE, *words) == 1
    assert "s3://bucket/raw exists already" in capsys.readouterr().err
    assert run(*BASE, *words, "--append=True") == 0
    first, second = contents(storage.fetch("s3://bucket/raw"))
    assert first["seed"] < second["seed"]
