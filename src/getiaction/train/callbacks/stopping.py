"""Lightning callback that saves a checkpoint and ends training on SIGTERM or Ctrl-C."""

import signal
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from foundation.stopping import Stopped, StopSignals
from getiaction.train.checkpoint import NativeCheckpoint
from getiaction.train.exact_resume import State, random_state, restore_random_state


class StopOnSignal(Callback):
    """At SIGTERM or Ctrl-C, finish the running step, save a checkpoint, and end.

    The checkpoint is the trainer's :class:`NativeCheckpoint`'s, or else one of Lightning's beside
    those of its ``ModelCheckpoint``; a run that is resumed from it goes on exactly. Validation is
    broken off, since it may take longer than there is time. Before the first step there is nothing
    to save, and a signal ends it at once. Of several processes, each may get the signal.

    Args:
        signals: What takes the signals; one for the time of the training unless given.

    Raises:
        Stopped: out of ``fit``; a SystemExit with the status 143 after SIGTERM, 130 after Ctrl-C.
    """

    def __init__(self, signals: StopSignals | None = None) -> None:
        self.signals = signals or StopSignals()
        self.saved: str | Path | None = None
        """The checkpoint that a signal was answered with."""
        self._before_validation: State | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Take the signals from Lightning, which at the end gives them back to whom it had them of.

        Its own answer to SIGTERM is to end without a checkpoint.
        """
        self.signals.forget()
        self.signals.deferred = False
        self.signals.install()

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """From here on the step is finished first."""
        self.signals.deferred = True

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End here if asked to, unless more batches belong to the step."""
        if trainer.fit_loop._should_accumulate():
            return
        told = self.signals.received is not None
        if trainer.world_size == 1:
            if told:
                self._stop(trainer, pl_module)
        elif trainer.strategy.reduce_boolean_decision(told, all=False):
            self._stop_all(trainer, pl_module)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """From here on a signal need not wait: nothing changes but the random state."""
        if (
            not self.signals.deferred
            or trainer.world_size > 1
            or trainer.fit_loop._should_accumulate()
        ):
            return
        self._before_validation = random_state()
        self.signals.deferred = False
        if self.signals.received is not None:
            raise Stopped(self.signals.received)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Steps are finished first again."""
        if self._before_validation is not None:
            self.signals.deferred = True
            self._before_validation = None

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Save what was being validated."""
        state, self._before_validation = self._before_validation, None
        if isinstance(exception, Stopped) and state is not None:
            # A second signal must not break the saving off.
            self.signals.deferred = True
            restore_random_state(state)
            self.saved = _save(trainer, pl_module)

    def _stop(self, trainer: Any, module: Any) -> None:
        assert self.signals.received is not None
        self.saved = _save(trainer, module)
        raise Stopped(self.signals.received)

    def _stop_all(self, trainer: Any, module: Any) -> None:
        self.saved = _save(trainer, module)
        trainer.strategy.barrier()
        if not trainer.is_global_zero:
            # Lightning kills the first process when another one ends with an error.
            raise SystemExit(0)
        raise Stopped(self.signals.received or signal.SIGTERM)


def _save(trainer: Any, module: Any) -> str | Path | None:
    """Write a checkpoint by whatever the trainer writes them with; None if by nothing.

    Called in all processes: Lightning waits for all of them in its ``save_checkpoint``.
    """
    for callback in trainer.callbacks:
        if isinstance(callback, NativeCheckpoint):
            if not trainer.is_global_zero:
                return None
            return callback.save(trainer, module, trainer.global_step)
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is not None:
            path = f"{callback.dirpath}/stopped-step={trainer.global_step}.ckpt"
            trainer.save_checkpoint(path)
            return path
    return None
