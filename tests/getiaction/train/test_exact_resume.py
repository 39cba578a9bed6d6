import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from getiaction.train.exact_resume import random_state, restore_random_state
from tests.getiaction.train.resumable import HELD_OUT, Step, read, run

# An epoch of 34 frames has 6 batches.
BY_STEPS = {"max_steps": 15, "max_epochs": -1}


def run_elsewhere(root: Path, run_dir: Path, **options: Any) -> int:
    """Run in a process of its own; return its exit status."""
    module = "tests.getiaction.train.resumable"
    command = [sys.executable, "-m", module, str(root), str(run_dir), json.dumps(options)]
    return subprocess.run(command).returncode


@pytest.fixture(scope="module")
def whole(state_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Step], Path]:
    run_dir = tmp_path_factory.mktemp("whole")
    return run(state_root, run_dir), run_dir


# The run that goes on saves elsewhere, so that the next one finds the same checkpoints.
@pytest.mark.filterwarnings("ignore:The dirpath has changed")
# In the first epoch, at its border, after one step of the second, and at the last border.
@pytest.mark.parametrize("step", [4, 6, 7, 12])
@pytest.mark.parametrize("limits", [{"max_epochs": 3}, BY_STEPS], ids=["epochs", "steps"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    whole: tuple[list[Step], Path],
    state_root: Path,
    tmp_path: Path,
    step: int,
    limits: dict[str, int],
) -> None:
    steps, run_dir = whole
    assert len(steps) == 18
    resume_from = run_dir / f"step={step}.ckpt"
    rest = run(state_root, tmp_path, resume_from=resume_from, limits=limits)
    assert rest == steps[step : limits.get("max_steps")]


# At the end of each validation, which is what a checkpoint with a monitor does, or of each epoch.
@pytest.mark.parametrize("at_epoch_end", [False, True], ids=["validation", "epoch"])
@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_validation_between_changes_nothing(
    state_root: Path, tmp_path: Path, at_epoch_end: bool
) -> None:
    saving = {"every_n_epochs": 1, "save_on_train_epoch_end": at_epoch_end}
    whole = run(state_root, tmp_path / "whole", saving=saving, **HELD_OUT)
    assert len(whole) == 8
    for step in (2, 6):
        checkpoint = tmp_path / f"whole/step={step}.ckpt"
        run_dir = tmp_path / f"from {step}"
        rest = run(state_root, run_dir, resume_from=checkpoint, saving=saving, **HELD_OUT)
        assert rest == whole[step:]


# Starts processes that import torch and LeRobot; killed at other steps in test_endings.py.
@pytest.mark.e2e
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_killed_run_goes_on(state_root: Path, tmp_path: Path, workers: int) -> None:
    whole = run(state_root, tmp_path / "whole", num_workers=workers, **HELD_OUT)
    killed = run_elsewhere(
        state_root, tmp_path / "killed", die_at=4, num_workers=workers, **HELD_OUT
    )
    assert killed == -signal.SIGKILL
    assert read(tmp_path / "killed") == whole[:4]
    # The third step, the first one of an epoch, was the last to be saved.
    rest = run(
        state_root,
        tmp_path / "rest",
        resume_from=tmp_path / "killed/step=3.ckpt",
        num_workers=workers,
        **HELD_OUT,
    )
    assert rest == whole[3:]


@pytest.mark.e2e  # four processes import torch and LeRobot
def test_two_processes_go_on(state_root: Path, tmp_path: Path) -> None:
    # An epoch has 3 steps; the last one is filled from the epoch's beginning.
    options: dict[str, Any] = {"devices": 2, "limits": {"max_epochs": 3}}
    assert run_elsewhere(state_root, tmp_path / "whole", **options) == 0
    for step in (2, 3):
        checkpoint = str(tmp_path / f"whole/step={step}.ckpt")
        run_dir = tmp_path / f"from {step}"
        assert run_elsewhere(state_root, run_dir, resume_from=checkpoint, **options) == 0
        for rank in (0, 1):
            whole = read(tmp_path / "whole", rank)
            assert len(whole) == 9
            assert read(run_dir, rank) == whole[step:]
    assert read(tmp_path / "whole", 0) != read(tmp_path / "whole", 1)


def test_random_states_come_back() -> None:
    def draw() -> tuple[float, float, float, float]:
        return random.gauss(), np.random.rand(), float(np.random.randn()), torch.rand(()).item()

    before = random_state()
    first = draw()
    assert draw() != first
    restore_random_state(before)
    assert draw() == first
