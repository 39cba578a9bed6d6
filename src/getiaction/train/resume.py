"""Resume training from a native checkpoint with the same batches and the same random numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import Annotated, Any

import torch
from lerobot.common.train_utils import load_training_state
from lerobot.utils.constants import TRAINING_STATE_DIR, TRAINING_STEP
from lerobot.utils.random_utils import load_rng_state
from lightning.pytorch import Callback
from pydantic import Field
from safetensors import SafetensorError

from foundation.documents import Document, Reader
from foundation.errors import FoundationError
from foundation.text import printable
from getiaction.errors import GetiactionError
from getiaction.policies.lerobot.quirks import unpack_counters
from getiaction.train.checkpoint import GRAD_SCALER

MEND = "resume from another checkpoint of the run"
READER = Reader(error=GetiactionError, mend=MEND, size=1 << 20)


class TrainingStep(Document):
    """The needed fields of LeRobot's ``training_step.json``."""

    step: Annotated[int, Field(ge=0, lt=1 << 53)]


class NativeResume(Callback):
    """Continue training at the step of a checkpoint that :class:`NativeCheckpoint` wrote.

    Weights are loaded when the policy is created (``LeRobotPolicy.create(pretrained=...)``); this
    restores step, data order, optimizer, schedule and random state. Batch size, number of processes
    and gradient accumulation must be those of the run that wrote it.

    Args:
        checkpoint: The directory ``checkpoints/<step>``.

    Raises:
        GetiactionError: its training state cannot be read.
    """

    def __init__(self, checkpoint: str | Path) -> None:
        self.checkpoint = Path(checkpoint)
        self.state_dir = self.checkpoint / TRAINING_STATE_DIR
        with _readable(self.state_dir):
            self.step: int = READER.load_json(self.state_dir / TRAINING_STEP, TrainingStep).step
        self._began = False
        # Batches per process: in previous epochs, and in the current one.
        self._before = 0
        self._taken = 0

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Set the sampler to the position at which the earlier run ended.

        Without gradient accumulation this is LeRobot's ``compute_sampler_state``. With it the last
        step of an epoch has the remaining batches.
        """
        data = trainer.datamodule
        samples = data.train_batch_size * trainer.world_size
        batches = ceil(ceil(len(data.sampler) / data.train_batch_size) / trainer.world_size)
        a_step = trainer.accumulate_grad_batches
        epoch, steps = divmod(self.step, ceil(batches / a_step))
        self._before, self._taken = epoch * batches, steps * a_step
        data.sampler.resume(epoch, self._taken * samples)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Restore the optimizer, the schedule and the count of steps."""
        schedulers = trainer.lr_scheduler_configs
        scheduler = schedulers[0].scheduler if schedulers else None
        with _readable(self.state_dir):
            load_training_state(self.checkpoint, trainer.optimizers[0], scheduler)
        # The policy's counters count forward passes.
        unpack_counters(pl_module.lerobot_policy, self._before + self._taken)
        scaler = self.state_dir / GRAD_SCALER
        if scaler.is_file():
            with _readable(self.state_dir):
                state = READER.load_json(scaler, dict[str, Any])
                trainer.precision_plugin.load_state_dict(state)
        epoch_loop = trainer.fit_loop.epoch_loop
        steps = epoch_loop.automatic_optimization.optim_progress.optimizer.step.total
        steps.ready = steps.completed = self.step
        epoch_loop._batches_that_stepped = self.step

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Restore the random state, as late as possible: creating the loader's iterator uses it.

        The uninterrupted run used it there too if, and only if, it was at the start of an epoch.
        """
        if self._began:
            return
        self._began = True
        self._count_batches(trainer)
        with _readable(self.state_dir):
            load_rng_state(self.state_dir)
        if self._taken == 0 and not trainer.train_dataloader.persistent_workers:
            torch.empty((), dtype=torch.int64).random_()

    def _count_batches(self, trainer: Any) -> None:
        """Set Lightning's batch progress within the epoch.

        It determines when Lightning validates, and steps with fewer batches at the end of an epoch.
        """
        progress = trainer.fit_loop.epoch_loop.batch_progress
        for name in ("ready", "started", "processed", "completed"):
            now, total = getattr(progress.current, name), getattr(progress.total, name)
            setattr(progress.current, name, now + self._taken)
            setattr(progress.total, name, total + self._before + self._taken)
        fetcher = trainer.fit_loop._data_fetcher
        fetcher.fetched += self._taken
        fetcher.done = fetcher.length is not None and fetcher.fetched >= fetcher.length
        progress.is_last_batch = fetcher.done


@contextmanager
def _readable(state_dir: Path) -> Iterator[None]:
    """Convert errors of LeRobot to a GetiactionError that names the checkpoint."""
    try:
        yield
    except FoundationError:
        raise
    except (
        AttributeError,
        IndexError,
        KeyError,
        OSError,
        RecursionError,
        RuntimeError,
        SafetensorError,
        TypeError,
        ValueError,
    ) as error:
        why = printable(f"{type(error).__name__}: {error}")
        raise GetiactionError(f"cannot resume from {state_dir}: {why}; {MEND}") from error
