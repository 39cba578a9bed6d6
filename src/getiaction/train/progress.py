"""Progress of training and evaluation in a file or a pipe: lines on stderr instead of a bar."""

import sys
import time
from typing import Any

from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar

from foundation.progress import LOG_INTERVAL_S, bar


def progress_bar() -> ProgressBar:
    """Make Lightning's bar for a terminal or a notebook; lines for anything else."""
    if sys.stdout.isatty() or "ipykernel" in sys.modules:
        return TQDMProgressBar()
    return ProgressLines()


class ProgressLines(ProgressBar):
    """Lines on stderr: of training every few seconds, of an evaluation if it takes as long.

    They count steps, to ``max_steps`` or the steps of all epochs, and show what Lightning's bar
    shows: losses and other metrics that are logged with ``prog_bar``.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._training: Any = None
        self._evaluation: Any = None
        self._evaluated = 0
        self._evaluation_began = 0.0

    def disable(self) -> None:
        """Print nothing; Lightning calls this in all processes but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Print again."""
        self._enabled = True

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Print the first line."""
        if self._enabled:
            steps = trainer.estimated_stepping_batches
            total = int(steps) if steps != float("inf") else None
            self._training = bar(total=total, desc="training", unit="step")
            self._training.initial = self._training.n = trainer.global_step

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Count the step; print a line if one is due."""
        shown = self._training
        if shown is None or trainer.global_step == shown.n:
            return
        # Reading the metrics synchronises with the device.
        if time.time() - shown.last_print_t >= shown.mininterval:
            shown.set_postfix(self._values(trainer, pl_module), refresh=False)
        shown.update(trainer.global_step - shown.n)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Print the last line."""
        if self._training is not None:
            self._training.set_postfix(self._values(trainer, pl_module), refresh=False)
            self._training.close()
            self._training = None

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Print where it ended."""
        self.on_train_end(trainer, pl_module)
        self._end_evaluation()

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the clock."""
        self._begin_evaluation()

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the clock."""
        self._begin_evaluation()

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the clock."""
        self._begin_evaluation()

    def on_validation_batch_end(self, trainer: Any, *_: Any) -> None:
        """Count the batch."""
        self._count(sum(trainer.num_val_batches), "validation")

    def on_test_batch_end(self, trainer: Any, *_: Any) -> None:
        """Count the batch."""
        self._count(sum(trainer.num_test_batches), "test")

    def on_predict_batch_end(self, trainer: Any, *_: Any) -> None:
        """Count the batch."""
        self._count(sum(trainer.num_predict_batches), "prediction")

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """End its lines."""
        self._end_evaluation()

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """End its lines."""
        self._end_evaluation()

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        """End its lines."""
        self._end_evaluation()

    def print(self, *args: Any, sep: str = " ", **kwargs: Any) -> None:
        """Print a line of the policy's (``LightningModule.print``) between these."""
        print(*args, sep=sep, file=sys.stderr, flush=True)

    def _begin_evaluation(self) -> None:
        self._evaluated = 0
        self._evaluation_began = time.monotonic()

    def _count(self, total: float, what: str) -> None:
        self._evaluated += 1
        took = time.monotonic() - self._evaluation_began
        if self._evaluation is None and self._enabled and took >= LOG_INTERVAL_S:
            known = int(total) if total != float("inf") else None
            self._evaluation = bar(total=known, desc=what, unit="batch")
        if self._evaluation is not None:
            self._evaluation.update(self._evaluated - self._evaluation.n)

    def _end_evaluation(self) -> None:
        if self._evaluation is not None:
            self._evaluation.close()
            self._evaluation = None

    def _values(self, trainer: Any, pl_module: Any) -> dict[str, Any]:
        metrics = self.get_metrics(trainer, pl_module)
        return {name: value for name, value in metrics.items() if name != "v_num"}
