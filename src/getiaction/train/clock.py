"""Step timing: data wait, host-to-device copy, callbacks."""

import time
from typing import Any

import torch
from lightning.pytorch.profilers import Profiler

FETCH = ".train_dataloader_next"
TRANSFER = ".batch_to_device"
AFTERWARDS = ".on_train_batch_end"


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
