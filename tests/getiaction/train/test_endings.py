"""A run that is gone on with by ``ckpt_path`` equals one that was never ended, however it ended."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.getiaction.train.endings import (
    ENDS,
    EPOCHS,
    WHOLE,
    checkpoints,
    differences,
    steps,
    train,
)

# Within an epoch of 4 steps, at its end, and in the second one.
SOME = (1, 3, 4, 6)
EVERY = [
    # A run that is killed, is so in a process of its own, which takes long to start.
    pytest.param(
        at,
        end,
        marks=() if at in SOME and end != "kill" else pytest.mark.e2e,
        id=f"step {at}-{end}",
    )
    for at in range(1, 13)
    for end in ENDS
]


@pytest.fixture(scope="module")
def whole(state_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("endings") / "whole"
    train(state_root, run_dir)
    return run_dir


@pytest.mark.parametrize(("at", "end"), EVERY)
@pytest.mark.filterwarnings("ignore:The dirpath has changed", "ignore:Be aware that when using")
def test_a_run_goes_on_as_if_it_had_not_ended(
    whole: Path, state_root: Path, tmp_path: Path, at: int, end: str
) -> None:
    assert differences(state_root, tmp_path, whole, end, at) == []


@pytest.mark.filterwarnings("ignore:The dirpath has changed", "ignore:Be aware that when using")
def test_ended_again_and_again(whole: Path, state_root: Path, tmp_path: Path) -> None:
    """At the end of an epoch, twice within the next one, and at the end of that."""
    checkpoint: Path | None = None
    begun = 0
    for end, at in (("max_steps", 4), ("signal", 5), ("max_time", 7), ("max_steps", 8)):
        run_dir = tmp_path / str(at)
        limits = WHOLE if end == "max_steps" else EPOCHS
        train(state_root, run_dir, end=end, at=at, resume_from=checkpoint, limits=limits)
        assert steps(run_dir) == steps(whole)[begun:at]
        checkpoint, begun = checkpoints(run_dir, end, at)[0], at
    train(state_root, tmp_path / "rest", resume_from=checkpoint)
    assert steps(tmp_path / "rest") == steps(whole)[8:]


@pytest.mark.e2e
def test_two_processes(state_root: Path, tmp_path: Path) -> None:
    module = "tests.getiaction.train.endings"
    words = [str(word) for word in (state_root, tmp_path, 2, *range(1, 13))]
    ended = subprocess.run(
        [sys.executable, "-m", module, *words], stdout=subprocess.PIPE, text=True, timeout=3000
    )
    assert (ended.returncode, ended.stdout) == (0, "")
