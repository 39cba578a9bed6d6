import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from foundation.errors import UsageError
from positronic.dataset import Episode, LocalDataset
from positronic.inference.workers import require_sendable
from positronic.policy import Policy
from positronic.simulator import gl
from tests.positronic.inference.commands import (
    PLANNER,
    POLICIES,
    ROOT,
    expert_server,
    remote,
    run,
)
from tests.positronic.inference.policies import HoldPolicy

pytestmark = pytest.mark.skipif(
    not any(gl.is_available(name) for name in ("egl", "osmesa")), reason="nothing to render with"
)


def assert_same(one: Episode, other: Episode) -> None:
    """Compare everything of two recordings but where and when they were made."""
    assert one.static == other.static
    assert one.signals.keys() == other.signals.keys()
    for name, ours, theirs in ((n, s, other.signals[n]) for n, s in one.signals.items()):
        assert ours.timestamps().tolist() == theirs.timestamps().tolist()
        values, others = (np.stack(list(recorded.values())) for recorded in (ours, theirs))
        if name.startswith("image."):
            assert_alike(values, others)
        else:
            assert values.tolist() == others.tolist(), name


def assert_alike(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> None:
    """Compare pictures that were encoded; the encoder does not always choose alike."""
    assert np.abs(one.astype(int) - other).mean() < 2


def frames(path: Path) -> list[np.ndarray[Any, Any]]:
    with av.open(path) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def results(path: Path) -> dict[str, object]:
    document: dict[str, object] = json.loads((path / "results.json").read_text())
    del document["run"]
    return document


@pytest.mark.e2e
def test_rollouts_at_once_come_out_as_one_after_the_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--driver.num_iterations=3", "--driver.simulation_time=1", "--video=True"]
    with expert_server(0) as port:
        for n in (1, 2):
            where = f"--output_dir={tmp_path}/{n}"
            assert run(*remote(port), *words, where, f"--num_envs={n}", "--report_videos=0") == 0
    first, second = tmp_path / "1", tmp_path / "2"
    assert results(first) == results(second)
    one, two = LocalDataset(first), LocalDataset(second)
    assert len(one) == len(two) == 3
    for a, b in zip(one, two, strict=True):
        assert_same(a, b)
    films = [sorted((path / "videos").iterdir()) for path in (first, second)]
    assert len(films[0]) == 3
    for a, b in zip(*films, strict=True):
        assert a.name == b.name
        for one_frame, other in zip(frames(a), frames(b), strict=True):
            assert_alike(one_frame, other)
    assert not list(second.glob(".*"))
    lines = [x for x in capsys.readouterr().out.splitlines() if "  seed " in x]
    assert sorted(line.split()[0] for line in lines[3:]) == ["1/3", "2/3", "3/3"]
    page = (second / "report.html").read_text()
    places = [page.index(f"<td>{seed}</td>") for seed in (100000, 100001, 100002)]
    assert places == sorted(places)


def test_a_worker_that_dies_costs_its_own_rollout_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = [f"--policy={POLICIES}.deadly", f"--policy.marker={tmp_path}/marker"]
    words = ["--driver.num_iterations=4", "--driver.simulation_time=1", "--video=True"]
    where = tmp_path / "out"
    code = run(*policy, *words, "--num_envs=2", "--cameras=image.wrist", f"--output_dir={where}")
    captured = capsys.readouterr()
    assert code == 1
    (line,) = [x for x in captured.err.splitlines() if x.startswith("positronic-inference")]
    assert "died (killed, or out of memory?)" in line
    document = json.loads((where / "results.json").read_text())
    ends = [episode["ended_by"] for episode in document["episodes"]]
    assert sorted(ends) == ["error", "timeout", "timeout", "timeout"]
    assert [episode["seed"] for episode in document["episodes"]] == list(range(100000, 100004))
    kept = [e["seed"] for e in document["episodes"] if e["ended_by"] == "timeout"]
    assert [episode["eval.seed"] for episode in LocalDataset(where)] == kept
    assert len(list((where / "videos").iterdir())) == 3
    assert not list(where.glob(".*"))
    assert "not finished" in captured.out


@pytest.mark.e2e
def test_a_server_that_dies_costs_no_recorded_rollout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--driver.num_iterations=6", "--num_envs=2", "--cameras=none", "--report_videos=0"]
    with expert_server(150) as port:
        code = run(*remote(port), *words, f"--output_dir={tmp_path}")
    captured = capsys.readouterr()
    assert code == 1
    (line,) = [x for x in captured.err.splitlines() if x.startswith("positronic-inference")]
    assert "went away" in line or "no inference server" in line
    document = json.loads((tmp_path / "results.json").read_text())
    ends = document["summary"]["ended_by"]
    assert ends["success"] == 2
    assert ends.get("server_gone", 0) >= 1
    recorded = [episode["eval.ended_by"] for episode in LocalDataset(tmp_path)]
    assert recorded == [episode["ended_by"] for episode in document["episodes"]]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.e2e
@pytest.mark.parametrize("whole_group", [False, pytest.param(True, marks=pytest.mark.e2e)])
def test_ctrl_c_ends_all_workers_and_writes_the_report(tmp_path: Path, whole_group: bool) -> None:
    words = [PLANNER, "--policy.seconds=100", "--cameras=none", "--driver.num_iterations=9"]
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "positronic.inference", "sim", *words, "--num_envs=2"),
            f"--output_dir={tmp_path}",
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    try:
        while len(list(tmp_path.glob(".staging-*"))) < 2:  # both are in the middle of a rollout
            assert process.poll() is None
            time.sleep(0.02)
        send = os.killpg if whole_group else os.kill
        send(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert err.splitlines() == ["python -m positronic.inference: interrupted"]
    assert "not finished, so not counted: 2" in out
    document = json.loads((tmp_path / "results.json").read_text())
    assert document["run"]["error"] == "interrupted"
    assert document["summary"]["ended_by"] == {"interrupted": 2}
    assert [episode["eval.ended_by"] for episode in LocalDataset(tmp_path)] == ["interrupted"] * 2
    assert (tmp_path / "report.html").exists()
    assert not list(tmp_path.glob(".*"))


class Locked(HoldPolicy):
    """A policy with something in it that stays in its process, as weights do."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


def test_a_policy_of_this_process_is_to_be_served() -> None:
    policy: Policy = HoldPolicy()
    require_sendable(policy)
    with pytest.raises(UsageError, match=r"vendors\.lerobot\.server"):
        require_sendable(Locked())


@pytest.mark.e2e
def test_trouble_at_the_start_is_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--policy.connect_timeout=0.2", "--num_envs=2", "--driver.num_iterations=2"]
    assert run(*remote("9"), *words, "--cameras=none", f"--output_dir={tmp_path}/new") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "no inference server at" in line
    assert not list((tmp_path / "new").iterdir())
