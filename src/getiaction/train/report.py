"""Training report: loss, throughput and step timing as log lines, and a progress bar."""

import math
import sys
import time
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.profilers import Profiler
from torch import Tensor
from tqdm import tqdm

from getiaction.errors import GetiactionError

FETCH = ".train_dataloader_next"
TRANSFER = ".batch_to_device"
AFTERWARDS = ".on_train_batch_end"


# Warn if training waits for data for more than this share of the time.
WAITING_SHARE = 0.25
REPORTS_BETWEEN_WARNINGS = 10
REMEDY = "give the data module more num_workers, or a larger cache of decoded frames"


class StepClock(Profiler):
    """Profiler that sums the durations of a step's parts, and delegates to the trainer's own.

    On a GPU, copies are asynchronous; their duration is measured by CUDA events.

    Args:
        inner: The trainer's own profiler.
        own: State key of the reporting callback, which is not counted.
        on_gpu: Whether the device is a GPU.
    """

    def __init__(self, inner: Profiler, own: str, *, on_gpu: bool) -> None:
        super().__init__()
        self.inner = inner
        self.own = own
        self.on_gpu = on_gpu
        #: Whether in training, as opposed to evaluation, which transfers batches too.
        self.training = True
        self._begun: dict[str, float] = {}
        self._seconds: dict[str, float] = {}
        self._copies: list[tuple[Any, Any]] = []

    def reset(self) -> None:
        """Reset the sums."""
        self._seconds.clear()
        self._copies.clear()

    def fetch_s(self) -> float:
        """Seconds that training waited for batches."""
        return self._seconds.get(FETCH, 0.0)

    def transfer_s(self) -> float:
        """Seconds of host-to-device copies; the device must be synchronised."""
        copies: float = sum(begun.elapsed_time(done) for begun, done in self._copies)
        return self._seconds.get(TRANSFER, 0.0) + copies / 1e3

    def afterwards_s(self) -> float:
        """Seconds that other callbacks took after steps, e.g. for saving."""
        return self._seconds.get(AFTERWARDS, 0.0)

    def start(self, action_name: str) -> None:
        """Record the start of an action."""
        self.inner.start(action_name)
        part = self._part(action_name)
        if part == TRANSFER and self.on_gpu:
            self._copies.append((_event(), _event()))
            self._copies[-1][0].record()
        elif part is not None:
            self._begun[part] = time.perf_counter()

    def stop(self, action_name: str) -> None:
        """Add the duration of an action."""
        part = self._part(action_name)
        if part == TRANSFER and self.on_gpu:
            self._copies[-1][1].record()
        elif part in self._begun:
            took = time.perf_counter() - self._begun.pop(part)
            self._seconds[part] = self._seconds.get(part, 0.0) + took
        self.inner.stop(action_name)

    def _part(self, action: str) -> str | None:
        if not self.training:
            return None
        if action.endswith(AFTERWARDS):
            return (
                AFTERWARDS if action.startswith("[Callback]") and self.own not in action else None
            )
        return next((part for part in (FETCH, TRANSFER) if action.endswith(part)), None)

    def summary(self) -> str:
        """Return the summary of the trainer's own profiler."""
        return self.inner.summary()

    def describe(self) -> None:
        """Print the description of the trainer's own profiler."""
        self.inner.describe()

    def setup(self, stage: str, local_rank: int | None = None, log_dir: str | None = None) -> None:
        """Set up the trainer's own profiler."""
        self.inner.setup(stage, local_rank, log_dir)

    def teardown(self, stage: str | None) -> None:
        """Tear down the trainer's own profiler."""
        self.inner.teardown(stage)


def _event() -> torch.cuda.Event:
    # Not typed by torch.
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


class StepReport(Callback):
    """Report every ``log_freq`` steps: loss, gradient norm, learning rate, throughput, timing, ETA.

    Losses and norms are means over the steps since the last report. A step's time, and for the
    loggers its parts, data (waiting for the batch), transfer (host-to-device copy) and compute (the
    rest), are without evaluations and other callbacks after a step, such as saving.

    Args:
        total_steps: The step at which training ends.
        log_freq: Steps between lines; 0: no lines.
        remedy: Advice if training waits for data.
    """

    def __init__(self, *, total_steps: int, log_freq: int, remedy: str = REMEDY) -> None:
        self.total_steps = total_steps
        self.log_freq = log_freq
        self.remedy = remedy
        self._bar: Any = None
        self._clock: Any = None
        self._reports = 0
        self._warned_at = -REPORTS_BETWEEN_WARNINGS

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Install the profiler that measures step timing."""
        if not isinstance(trainer.profiler, StepClock):
            on_gpu = trainer.strategy.root_device.type == "cuda"
            trainer.profiler = StepClock(trainer.profiler, self.state_key, on_gpu=on_gpu)
        self._clock = trainer.profiler

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the clock, and the progress bar on a terminal."""
        if sys.stderr.isatty() and trainer.is_global_zero:
            self._bar = tqdm(
                total=self.total_steps,
                initial=trainer.global_step,
                desc="training",
                unit="step",
                dynamic_ncols=True,
            )
        self._began = self._evaluation_began = time.perf_counter()
        self._first_step = self._step = trainer.global_step
        self._reset()

    def _reset(self) -> None:
        self._since = time.perf_counter()
        self._clock.reset()
        self._evaluated_s = 0.0
        self._since_step = self._step
        self._samples = 0
        self._losses: list[Tensor] = []
        self._norms: list[Tensor] = []

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch, and the step unless gradients accumulate; report if due."""
        # Lightning divides the loss by the number of accumulated batches.
        self._losses.append(outputs["loss"].detach() * trainer.accumulate_grad_batches)
        self._samples += len(batch["index"]) * trainer.world_size
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        if pl_module.grad_norm is not None:
            self._norms.append(pl_module.grad_norm.detach())
        if self._bar is not None:
            self._bar.update()
        if self.log_freq and (self._step % self.log_freq == 0 or self._step == self.total_steps):
            self._report(trainer)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Stop the clock."""
        self._clock.training = False
        self._evaluation_began = time.perf_counter()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Restart the clock, and print the validation loss."""
        self._clock.training = True
        self._evaluated_s += time.perf_counter() - self._evaluation_began
        loss = trainer.callback_metrics.get("val/loss")
        if loss is not None:
            self._print(trainer, f"validation at step {trainer.global_step}: loss {loss:.4f}")

    def _report(self, trainer: Any) -> None:
        # Reading the loss synchronises with the device, so that pending computation is counted.
        loss = torch.stack(self._losses).mean().item()
        norm = torch.stack(self._norms).mean().item() if self._norms else math.nan
        now = time.perf_counter()
        elapsed = now - self._since - self._evaluated_s - self._clock.afterwards_s()
        steps = self._step - self._since_step
        data, transfer = self._clock.fetch_s(), self._clock.transfer_s()
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        # Over the whole run, including evaluations and saving.
        pace = (now - self._began) / (self._step - self._first_step)
        eta = _clock((self.total_steps - self._step) * pace)
        times = {
            "train/data_ms": 1e3 * data / steps,
            "train/transfer_ms": 1e3 * transfer / steps,
            "train/compute_ms": 1e3 * (elapsed - data - transfer) / steps,
        }
        samples_per_s = self._samples / elapsed
        total, waited = 1e3 * elapsed / steps, times["train/data_ms"]
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        self._print(
            trainer,
            # At most 100 columns; the loggers have the rest of the step's parts.
            f"step {self._step}/{self.total_steps}  loss {loss:.4f}  grad {norm:.2f}  "
            f"lr {rate:.1e}  {samples_per_s:.0f} samples/s  {total:.0f} ms (data {waited:.0f})  "
            f"eta {eta}",
        )
        if not math.isfinite(loss):
            raise GetiactionError(
                f"the loss is {loss} at step {self._step}: training has diverged; "
                "lower the learning rate"
            )
        metrics = {
            "train/loss_mean": loss,
            "train/grad_norm": norm,
            "train/lr": rate,
            "train/samples_per_s": samples_per_s,
            **times,
            "train/step_ms": total,
        }
        for sink in trainer.loggers:
            sink.log_metrics(metrics, step=self._step)
        self._warn_if_waiting(trainer, data / elapsed)
        self._reset()

    def _warn_if_waiting(self, trainer: Any, share: float) -> None:
        """Warn about waiting for data; not in the first report, as workers are starting."""
        self._reports += 1
        due = self._reports - self._warned_at >= REPORTS_BETWEEN_WARNINGS
        if self._reports > 1 and due and share > WAITING_SHARE:
            self._warned_at = self._reports
            self._print(
                trainer,
                f"training waits for data {100 * share:.0f} % of the time (more than "
                f"{100 * WAITING_SHARE:.0f} %): {self.remedy}",
            )

    def _print(self, trainer: Any, line: str) -> None:
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        elif trainer.is_global_zero:
            print(line, file=sys.stderr, flush=True)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s"
