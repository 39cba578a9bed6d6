"""What a run prints where no terminal is: lines on stderr, and at the end what came of it."""

import logging
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar

import foundation.progress
from getiaction.policies.lerobot import LeRobotPolicy
from getiaction.train import Trainer, progress
from getiaction.train.progress import ProgressLines, progress_bar
from tests.getiaction.train.small import data, drift, policy, trainer

STEPS = 5


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line is due."""
    monkeypatch.setattr(progress, "LOG_INTERVAL_S", 0.0)
    monkeypatch.setattr(foundation.progress, "LOG_INTERVAL_S", 0.0)


def run(root: Path, place: Path, **options: Any) -> Trainer:
    settings = {"max_epochs": None, "max_steps": STEPS, "enable_progress_bar": True, **options}
    made = trainer(place, log_every_n_steps=1, **settings)
    made.fit(policy(), data(root, val_split=0.3, val_gyms=drift()))
    return made


def test_lines_in_a_pipe(
    state_root: Path, tmp_path: Path, always: None, capsys: pytest.CaptureFixture[str]
) -> None:
    run(state_root, tmp_path)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert not re.search(r"[\r\x1b]", printed.err)
    lines = printed.err.splitlines()
    training = [line for line in lines if line.startswith("training: ")]
    assert [re.findall(r"(\d+)/5 \[", line) for line in training[:3]] == [["0"], ["1"], ["2"]]
    assert re.search(r"5/5 \[.*, train/loss=\d\S+, val/loss=\d\S+\]$", training[-1])
    assert any(re.match(r"validation: 100% (\d+)/\1 \[", line) for line in lines)


def test_lines_are_few_if_a_run_is_quick(
    state_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(state_root, tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert not any("validation: " in line for line in lines)


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_lines_of_an_evaluation(
    stage: str,
    state_root: Path,
    tmp_path: Path,
    always: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = trainer(tmp_path, enable_progress_bar=True)
    batches = data(state_root, val_split=0.3, test_gyms=drift(), num_rollouts_test=2)
    getattr(made, stage)(policy(), batches)
    name = {"validate": "validation", "predict": "prediction"}.get(stage, stage)
    assert re.search(rf"^{name}: 100% (\d+)/\1 \[", capsys.readouterr().err, re.MULTILINE)


def test_only_the_first_process_prints(
    state_root: Path, tmp_path: Path, always: None, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ProgressLines()
    lines.disable()
    run(state_root, tmp_path, callbacks=[lines])
    assert "training" not in capsys.readouterr().err


def test_a_terminal_and_a_notebook_have_lightnings_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(progress_bar(), ProgressLines)
    with monkeypatch.context() as patch:
        patch.setattr(sys.stdout, "isatty", lambda: True)
        assert type(progress_bar()) is TQDMProgressBar
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    assert type(progress_bar()) is TQDMProgressBar


def test_the_end_says_what_was_made_and_what_to_do_with_it(
    state_root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    best = ModelCheckpoint(monitor="val/loss")
    made = run(
        state_root,
        Path("runs"),
        callbacks=[best],
        enable_checkpointing=True,
        enable_progress_bar=False,
    )
    trained, checkpoint, following = capsys.readouterr().err.splitlines()[-3:]
    told = re.fullmatch(rf"trained {STEPS} steps: train/loss (\S+), val/loss (\S+)", trained)
    assert told is not None
    losses = [made.callback_metrics[f"{part}/loss"].item() for part in ("train", "val")]
    assert [float(number) for number in told.groups()] == pytest.approx(losses, rel=1e-3)
    path = checkpoint.removeprefix("checkpoint: ")
    assert not Path(path).is_absolute()
    assert Path(path).resolve() == Path(best.best_model_path).resolve()
    names: dict[str, Any] = {"LeRobotPolicy": LeRobotPolicy}
    exec(following.removeprefix("next: "), names)
    saved = torch.load(path, weights_only=True)["state_dict"]
    loaded = names["policy"].state_dict()
    assert all(torch.equal(loaded[name], saved[name]) for name in loaded)


def test_a_record_is_printed_once(tmp_path: Path) -> None:
    """Whoever logs to the root logger, as LeRobot does, makes a second handler there."""
    Trainer(default_root_dir=tmp_path, accelerator="cpu")
    (own,) = logging.getLogger("lightning").handlers
    record = logging.LogRecord("lightning.pytorch", logging.INFO, "", 1, "summary", (), None)
    root = logging.getLogger()
    before = root.handlers[:]
    try:
        root.handlers[:] = []
        assert own.filter(record)
        root.handlers[:] = [logging.StreamHandler(sys.stderr)]
        assert not own.filter(record)
    finally:
        root.handlers[:] = before
