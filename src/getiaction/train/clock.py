"""Step timing: data wait, host-to-device copy, callbacks."""

import time
from typing import Any

import torch
from lightning.pytorch.profilers import Profiler

FETCH = ".train_dataloader_next"
TRANSFER = ".batch_to_device"
AFTERWARDS = ".on_train_batch_end"


class StepClock(Profiler):
    """Adds up what Lightning says to its profiler of a step's parts, and hands it on.

    Where the device is a GPU, copies are queued; their time is then the device's own.

    Args:
        inner: The profiler that the trainer had.
        own: Name of the callback that asks, which is not among the others.
        on_gpu: Whether the device is one.
    """

    def __init__(self, inner: Profiler, own: str, *, on_gpu: bool) -> None:
        super().__init__()
        self.inner = inner
        self.own = own
        self.on_gpu = on_gpu
        #: Whether training goes on; an evaluation transfers batches too.
        self.training = True
        self._begun: dict[str, float] = {}
        self._seconds: dict[str, float] = {}
        self._copies: list[tuple[Any, Any]] = []

    def reset(self) -> None:
        """Begin to count anew."""
        self._seconds.clear()
        self._copies.clear()

    def fetch_s(self) -> float:
        """Seconds that training waited for batches."""
        return self._seconds.get(FETCH, 0.0)

    def transfer_s(self) -> float:
        """Seconds that batches took to the device; all that was queued must be done."""
        copies: float = sum(begun.elapsed_time(done) for begun, done in self._copies)
        return self._seconds.get(TRANSFER, 0.0) + copies / 1e3

    def afterwards_s(self) -> float:
        """Seconds that other callbacks took after steps, as for saving."""
        return self._seconds.get(AFTERWARDS, 0.0)

    def start(self, action_name: str) -> None:
        """Note when an action begins."""
        self.inner.start(action_name)
        part = self._part(action_name)
        if part == TRANSFER and self.on_gpu:
            self._copies.append((_event(), _event()))
            self._copies[-1][0].record()
        elif part is not None:
            self._begun[part] = time.perf_counter()

    def stop(self, action_name: str) -> None:
        """Add up how long it took."""
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
        """Return what the trainer's own profiler has to say."""
        return self.inner.summary()

    def describe(self) -> None:
        """Let the trainer's own profiler describe what it found."""
        self.inner.describe()

    def setup(self, stage: str, local_rank: int | None = None, log_dir: str | None = None) -> None:
        """Set the trainer's own profiler up."""
        self.inner.setup(stage, local_rank, log_dir)

    def teardown(self, stage: str | None) -> None:
        """Let the trainer's own profiler close its files."""
        self.inner.teardown(stage)


def _event() -> torch.cuda.Event:
    # Not typed by torch.
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
