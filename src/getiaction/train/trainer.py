"""A Lightning Trainer with the settings under which LeRobot's results hold."""

import logging
import warnings
from typing import Any

import torch
from lightning.pytorch import Trainer as LightningTrainer

from getiaction.train.precision import precision_plugins

# Lightning advises more worker processes; batches gathered in memory need none.
NEEDS_NO_WORKERS = ".*does not have many workers.*"
# The loop is bounded by steps, as LeRobot's is; the number of epochs follows.
UNBOUNDED = ".*`max_epochs` was not set.*"
# Held-out episodes are optional.
NOTHING_HELD_OUT = ".*Total length of `list` across ranks is zero.*"
# Lightning 2.6 asks torch 2.11 in a way that it has come to dislike.
LEAF_SPEC = r".*isinstance\(treespec, LeafSpec\).*"


class Trainer(LightningTrainer):
    """Lightning's Trainer; what it does not set here, it leaves as Lightning has it.

    The sampler shards itself, checks before training would draw random numbers, and checkpoints are
    LeRobot's (:class:`getiaction.train.NativeCheckpoint`) rather than Lightning's.
    """

    def __init__(self, **kwargs: Any) -> None:
        settings: dict[str, Any] = {
            "use_distributed_sampler": False,
            "num_sanity_val_steps": 0,
            "enable_checkpointing": False,
            "enable_model_summary": False,
            "benchmark": True,
        }
        logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
        precision, accelerator = kwargs.pop("precision", None), kwargs.get("accelerator", "auto")
        settings |= precision_plugins(precision, accelerator)
        super().__init__(**{**settings, **kwargs})
        # As lerobot-train; Lightning leaves it off.
        torch.backends.cuda.matmul.allow_tf32 = True

    def fit(self, *args: Any, **kwargs: Any) -> None:
        """Run Lightning's ``fit``; Ctrl-C arrives as KeyboardInterrupt."""
        with warnings.catch_warnings():
            for message in (NEEDS_NO_WORKERS, UNBOUNDED, NOTHING_HELD_OUT, LEAF_SPEC):
                warnings.filterwarnings("ignore", message)
            try:
                super().fit(*args, **kwargs)
            except SystemExit as stop:
                # Lightning makes exit status 1 of it, which a failure has as well.
                if isinstance(stop.__context__, KeyboardInterrupt):
                    raise KeyboardInterrupt from stop
                raise
