"""How training goes and where its time goes, as one line now and then and a bar on a terminal."""

import logging
import math
import sys
import time
from typing import Any

import torch
from lightning.pytorch import Callback
from torch import Tensor
from tqdm import tqdm

from getiaction.errors import GetiactionError

logger = logging.getLogger(__name__)


class StepReport(Callback):
    """Report every ``log_freq`` steps: loss, gradient norm, rate, throughput, data time, ETA.

    Losses and norms are means over the steps since the last report. Data time is what passes
    between the end of a step and the next batch being there; the rest is compute.

    Args:
        total_steps: The step at which training ends.
        log_freq: Steps between lines; 0 for none.
    """

    def __init__(self, *, total_steps: int, log_freq: int) -> None:
        self.total_steps = total_steps
        self.log_freq = log_freq
        self._bar: Any = None
        self._reset(time.perf_counter())

    def _reset(self, now: float) -> None:
        self._since = self._step_ended = now
        self._data_s = 0.0
        self._samples = 0
        self._steps = 0
        self._losses: list[Tensor] = []
        self._norms: list[Tensor] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the clock, and the bar if someone is watching."""
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=self.total_steps,
                initial=trainer.global_step,
                desc="training",
                unit="step",
                dynamic_ncols=True,
            )
        self._reset(time.perf_counter())

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take the time at which the batch was there."""
        self._data_s += time.perf_counter() - self._step_ended

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the step; report if it is due."""
        self._losses.append(outputs["loss"].detach())
        if pl_module.grad_norm is not None:
            self._norms.append(pl_module.grad_norm.detach())
        self._samples += len(batch["index"])
        self._steps += 1
        if self._bar is not None:
            self._bar.update()
        step = trainer.global_step
        if self.log_freq and (step % self.log_freq == 0 or step == self.total_steps):
            self._report(trainer, step)
        self._step_ended = time.perf_counter()

    def _report(self, trainer: Any, step: int) -> None:
        # Reading the loss waits for the device, so that what it still computes is counted.
        loss = torch.stack(self._losses).mean().item()
        norm = torch.stack(self._norms).mean().item() if self._norms else math.nan
        now = time.perf_counter()
        elapsed = now - self._since
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        per_step = elapsed / self._steps
        eta = _clock((self.total_steps - step) * per_step)
        metrics = {
            "train/grad_norm": norm,
            "train/lr": rate,
            "train/samples_per_s": self._samples / elapsed,
            "train/data_ms": 1e3 * self._data_s / self._steps,
            "train/step_ms": 1e3 * per_step,
        }
        compute_ms = metrics["train/step_ms"] - metrics["train/data_ms"]
        line = (
            f"step {step}/{self.total_steps}  loss {loss:.4f}  grad {norm:.3f}  lr {rate:.2e}  "
            f"{metrics['train/samples_per_s']:.0f} samples/s  "
            f"data {metrics['train/data_ms']:.1f} ms + compute {compute_ms:.1f} ms  eta {eta}"
        )
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)
        if not math.isfinite(loss):
            raise GetiactionError(
                f"the loss is {loss} at step {step}: training has diverged; lower the learning rate"
            )
        for sink in trainer.loggers:
            sink.log_metrics({"train/loss_mean": loss, **metrics}, step=step)
        self._reset(time.perf_counter())

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s"
