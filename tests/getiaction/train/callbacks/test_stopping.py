import contextlib
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from foundation.manifest import faults
from foundation.stopping import Stopped, StopSignals
from getiaction.train import NativeCheckpoint, NativeResume
from getiaction.train.callbacks import StopOnSignal
from tests.getiaction.train.small import Metrics, data, drift, policy, trainer
from tests.waiting import join

STEPS = 9
# 2 batches an epoch.
HELD_OUT: dict[str, Any] = {
    "episodes": [0, 2],
    "val_split": 0.3,
    "val_gyms": drift(),
    "num_rollouts_val": 2,
}
EVERY_3: dict[str, Any] = {"val_check_interval": 3, "check_val_every_n_epoch": None}


class Raise(Callback):
    """Send this process signals at a step: in its midst, or in the validation after it."""

    def __init__(self, at: int, *signals: signal.Signals, validating: bool = False) -> None:
        self.at, self.signals, self.validating = at, signals, validating

    def _send(self, trainer: Any) -> None:
        if trainer.global_step == self.at:
            for signum in self.signals:
                os.kill(os.getpid(), signum)

    def on_before_optimizer_step(self, trainer: Any, *rest: Any) -> None:
        if not self.validating:
            self._send(trainer)

    def on_validation_batch_end(self, trainer: Any, *rest: Any) -> None:
        if self.validating:
            self._send(trainer)


def run(
    root: Path,
    run_dir: Path,
    *callbacks: Callback,
    resume_from: Path | None = None,
    options: dict[str, Any] | None = None,
    **data_options: Any,
) -> tuple[list[float], dict[int, dict[str, float]]]:
    """Train to the end or to a signal; return the losses and what validations found."""
    seen, source, module = Metrics(), data(root, **data_options), policy()
    native = NativeCheckpoint(run_dir, total_steps=STEPS, save_freq=0)
    added: list[Callback] = [seen, native, *callbacks]
    if resume_from is not None:
        module.create(source.meta, pretrained=resume_from / "pretrained_model")
        added.append(NativeResume(resume_from))
    fitted = trainer(run_dir, max_steps=STEPS, max_epochs=-1, callbacks=added, **(options or {}))
    with contextlib.suppress(Stopped):
        fitted.fit(module, source)
    return seen.losses, seen.at_step


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_the_step_is_finished_and_saved(
    state_root: Path, tmp_path: Path, signum: signal.Signals
) -> None:
    stop = StopOnSignal()
    former = signal.getsignal(signum)
    # The second SIGTERM changes nothing.
    more = [signum] * (2 if signum == signal.SIGTERM else 1)
    losses, _ = run(state_root, tmp_path / "run", stop, Raise(4, *more))
    assert len(losses) == 5
    assert stop.saved == tmp_path / "run/checkpoints/000005"
    assert faults(stop.saved) == []
    assert signal.getsignal(signum) is former

    whole, _ = run(state_root, tmp_path / "whole")
    rest, _ = run(state_root, tmp_path / "run", resume_from=stop.saved)
    assert losses + rest == whole


def test_a_step_of_several_batches_is_finished(state_root: Path, tmp_path: Path) -> None:
    """6 batches an epoch, so that its second step has two of them only."""
    stop, options = StopOnSignal(), {"accumulate_grad_batches": 4}
    whole, _ = run(state_root, tmp_path / "whole", options=options)
    for at in (2, 3):
        run_dir = tmp_path / f"at {at}"
        losses, _ = run(state_root, run_dir, stop, Raise(at, signal.SIGTERM), options=options)
        assert stop.saved == run_dir / f"checkpoints/{at + 1:06d}"
        rest, _ = run(state_root, run_dir, resume_from=stop.saved, options=options)
        assert losses + rest == whole


# After each epoch, or after so many steps.
@pytest.mark.parametrize(("at", "options"), [(4, {}), (3, EVERY_3), (6, EVERY_3)])
def test_validation_is_broken_off(
    state_root: Path, tmp_path: Path, at: int, options: dict[str, Any]
) -> None:
    stop = StopOnSignal()
    whole, validated = run(state_root, tmp_path / "whole", options=options, **HELD_OUT)
    assert set(validated) == ({3, 6, 9} if options else {2, 4, 6, 8})
    raising = Raise(at, signal.SIGTERM, validating=True)
    losses, seen = run(state_root, tmp_path / "run", stop, raising, options=options, **HELD_OUT)
    assert stop.saved == tmp_path / f"run/checkpoints/{at:06d}"
    rest, later = run(
        state_root, tmp_path / "run", resume_from=stop.saved, options=options, **HELD_OUT
    )
    assert losses + rest == whole
    assert seen | later == {step: found for step, found in validated.items() if step != at}


@pytest.mark.parametrize("options", [{}, EVERY_3])
def test_a_resumed_run_validates_after_the_same_steps(
    state_root: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    stop = StopOnSignal()
    _, validated = run(state_root, tmp_path / "whole", options=options, **HELD_OUT)
    _, seen = run(state_root, tmp_path, stop, Raise(4, signal.SIGTERM), options=options, **HELD_OUT)
    assert isinstance(stop.saved, Path)
    assert stop.saved.name == "000005"
    _, later = run(state_root, tmp_path, resume_from=stop.saved, options=options, **HELD_OUT)
    assert seen | later == validated


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_lightnings_checkpoints_do_as_well(state_root: Path, tmp_path: Path) -> None:
    def fit(name: str, *callbacks: Callback, ckpt_path: Any = None) -> list[float]:
        seen = Metrics()
        keep = ModelCheckpoint(tmp_path / name)
        fitted = trainer(
            tmp_path,
            max_steps=STEPS,
            max_epochs=-1,
            callbacks=[seen, keep, *callbacks],
            enable_checkpointing=True,
        )
        with contextlib.suppress(Stopped):
            fitted.fit(policy(), data(state_root), ckpt_path=ckpt_path)
        return seen.losses

    stop = StopOnSignal()
    losses = fit("stopped", stop, Raise(3, signal.SIGTERM))
    assert stop.saved == str(tmp_path / "stopped/stopped-step=4.ckpt")
    assert losses + fit("rest", ckpt_path=stop.saved) == fit("whole")


def test_before_the_first_step_it_ends_at_once(state_root: Path, tmp_path: Path) -> None:
    class Early(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    stop = StopOnSignal()
    losses, _ = run(state_root, tmp_path, stop, Early())
    assert (losses, stop.saved) == ([], None)
    assert not (tmp_path / "checkpoints").exists()


def test_in_another_thread_training_is_left_to_itself(state_root: Path, tmp_path: Path) -> None:
    losses: list[float] = []
    thread = threading.Thread(
        target=lambda: losses.extend(run(state_root, tmp_path, StopOnSignal())[0])
    )
    thread.start()
    join([thread], "the training")
    assert len(losses) == STEPS


def test_a_command_keeps_the_signals_to_itself(state_root: Path, tmp_path: Path) -> None:
    """After training, while it publishes, a signal is noted down and no more."""
    with StopSignals() as signals:
        run(state_root, tmp_path, StopOnSignal(signals))
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received is signal.SIGTERM
