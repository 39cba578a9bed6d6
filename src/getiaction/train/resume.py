"""Going on from a native checkpoint with the same batches and the same random numbers."""

from pathlib import Path
from typing import Any

import torch
from lerobot.common.train_utils import load_training_state, load_training_step
from lerobot.datasets import compute_sampler_state
from lerobot.utils.constants import TRAINING_STATE_DIR
from lerobot.utils.random_utils import load_rng_state
from lightning.pytorch import Callback

from getiaction.policies.lerobot.counters import unpack_counters


class NativeResume(Callback):
    """Continue training at the step of a checkpoint that :class:`NativeCheckpoint` wrote.

    The network's weights are loaded where it is made (``LeRobotPolicy.create(pretrained=...)``);
    this restores the rest: step, data order, optimizer, schedule and random state.

    Args:
        checkpoint: The directory ``checkpoints/<step>``.
    """

    def __init__(self, checkpoint: str | Path) -> None:
        self.checkpoint = Path(checkpoint)
        self.state_dir = self.checkpoint / TRAINING_STATE_DIR
        self.step: int = load_training_step(self.state_dir)
        self._rng_restored = False
        self._at_epoch_start = False

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Let the data begin where the earlier run ended."""
        data = trainer.datamodule
        state = compute_sampler_state(
            self.step, len(data.sampler), data.train_batch_size, trainer.world_size
        )
        self._at_epoch_start = state["start_index"] == 0
        data.sampler.resume(state["epoch"], state["start_index"])

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Restore the optimizer, the schedule and the count of steps."""
        schedulers = trainer.lr_scheduler_configs
        scheduler = schedulers[0].scheduler if schedulers else None
        load_training_state(self.checkpoint, trainer.optimizers[0], scheduler)
        # Natively each step is one forward pass.
        unpack_counters(pl_module.lerobot_policy, self.step)
        epoch_loop = trainer.fit_loop.epoch_loop
        steps = epoch_loop.automatic_optimization.optim_progress.optimizer.step.total
        steps.ready = steps.completed = self.step
        epoch_loop._batches_that_stepped = self.step

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Restore the random state, as late as can be: making the loader's iterator drew from it.

        The uninterrupted run drew there too if, and only if, it was at the start of an epoch.
        """
        if self._rng_restored:
            return
        self._rng_restored = True
        load_rng_state(self.state_dir)
        if self._at_epoch_start and not trainer.train_dataloader.persistent_workers:
            torch.empty((), dtype=torch.int64).random_()
