"""Where the report says that a step's time goes, by a clock that only the parts of a step move."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.loggers.logger import Logger

from getiaction.data import LeRobotDataModule
from getiaction.errors import GetiactionError
from getiaction.train import StepReport, report
from tests.getiaction.train.runs import BATCH, SEED
from tests.getiaction.train.small import policy, trainer

FETCH_S, TRANSFER_S, COMPUTE_S, SAVING_S, EVALUATION_S = 0.03, 0.02, 0.05, 7.0, 100.0


class Time:
    """In the place of the module."""

    now = 1000.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    ours = Time()
    monkeypatch.setattr(report, "time", ours)
    return ours


class SlowData(LeRobotDataModule):
    def __init__(self, time: Time, fetch_s: float, **options: Any) -> None:
        super().__init__(train_batch_size=BATCH, seed=SEED, num_workers=0, **options)
        self.time = time
        self.fetch_s = fetch_s

    def train_dataloader(self) -> Any:
        loader = super().train_dataloader()
        collate = loader.collate_fn

        def fetched(items: Any) -> Any:
            self.time.now += self.fetch_s
            return collate(items)

        loader.collate_fn = fetched
        return loader

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        self.time.now += TRANSFER_S
        return super().transfer_batch_to_device(batch, device, dataloader_idx)


class SlowSteps(Callback):
    def __init__(self, time: Time) -> None:
        self.time = time
        self.losses: list[float] = []
        self.samples: list[int] = []

    def on_before_backward(self, *args: Any) -> None:
        self.time.now += COMPUTE_S

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.losses.append(outputs["loss"].item())
        self.samples.append(len(batch["index"]))
        self.time.now += SAVING_S

    def on_validation_batch_end(self, *args: Any) -> None:
        self.time.now += EVALUATION_S


class Sink(Logger):
    def __init__(self) -> None:
        self.logged: dict[int, dict[str, float]] = {}

    name = version = None

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """They are not looked at."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        assert step is not None
        self.logged.setdefault(step, {}).update(metrics)


def fit(
    root: Path,
    time: Time,
    *,
    steps: int,
    fetch_s: float = FETCH_S,
    split: float = 0.0,
    **options: Any,
) -> tuple[SlowSteps, dict[int, dict[str, float]]]:
    slow, sink = SlowSteps(time), Sink()
    trainer(
        root,
        max_steps=steps,
        max_epochs=-1,
        logger=sink,
        log_every_n_steps=1,
        callbacks=[slow, StepReport(total_steps=steps, log_freq=2, remedy="do this")],
        **options,
    ).fit(policy(), SlowData(time, fetch_s, root=root, val_split=split))
    return slow, sink.logged


def test_a_step_is_split_into_its_parts(
    state_root: Path, time: Time, capsys: pytest.CaptureFixture[str]
) -> None:
    often: dict[str, Any] = {"val_check_interval": 1, "check_val_every_n_epoch": None}
    slow, logged = fit(state_root, time, steps=4, split=0.3, **often)
    for step in (2, 4):
        found = logged[step]
        assert found["train/data_ms"] == pytest.approx(1e3 * FETCH_S)
        assert found["train/transfer_ms"] == pytest.approx(1e3 * TRANSFER_S)
        assert found["train/compute_ms"] == pytest.approx(1e3 * COMPUTE_S)
        assert found["train/step_ms"] == pytest.approx(1e3 * (FETCH_S + TRANSFER_S + COMPUTE_S))
        assert found["train/samples_per_s"] == pytest.approx(
            sum(slow.samples[step - 2 : step]) / 0.2
        )
        assert found["train/loss_mean"] == pytest.approx(sum(slow.losses[step - 2 : step]) / 2)
    text = capsys.readouterr().err
    assert text.count("  100 ms (data 30)  ") == 2
    assert len(re.findall(r"^validation at step \d: loss [\d.]+$", text, re.MULTILINE)) == 4


def test_a_step_of_several_batches_counts_once(state_root: Path, time: Time) -> None:
    slow, logged = fit(state_root, time, steps=2, accumulate_grad_batches=2)
    assert logged[2]["train/data_ms"] == pytest.approx(2e3 * FETCH_S)
    # Lightning gives a half of each batch's loss.
    assert logged[2]["train/loss_mean"] == pytest.approx(sum(slow.losses) / 2)
    assert logged[2]["train/samples_per_s"] == pytest.approx(sum(slow.samples) / 0.4)


def test_waiting_for_data_is_warned_about_now_and_then(
    state_root: Path, time: Time, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(state_root, time, steps=26)
    # Not of the first two steps, and once in ten reports.
    lines = [line for line in capsys.readouterr().err.splitlines() if "waits" in line]
    assert lines == ["training waits for data 30 % of the time (more than 25 %): do this"] * 2
    fit(state_root, time, steps=6, fetch_s=FETCH_S / 2)
    assert "waits" not in capsys.readouterr().err


def test_a_loss_that_is_no_number_ends_training(state_root: Path, tmp_path: Path) -> None:
    class Diverge(Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *rest: Any) -> None:
            outputs["loss"].fill_(math.nan)

    one = trainer(
        tmp_path, max_steps=2, callbacks=[Diverge(), StepReport(total_steps=2, log_freq=1)]
    )
    with pytest.raises(GetiactionError, match="the loss is nan at step 1: training has diverged"):
        one.fit(policy(), LeRobotDataModule(root=state_root, train_batch_size=BATCH))
