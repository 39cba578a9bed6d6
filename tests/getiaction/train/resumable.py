"""A run that notes down every batch and loss, and that can be killed; also as a program.

python -m tests.getiaction.train.resumable ROOT RUN_DIR '{"die_at": 3, "num_workers": 0}'
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from lerobot.utils.random_utils import set_seed
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from getiaction.data import LeRobotDataModule
from getiaction.policies.lerobot import LeRobotPolicy
from getiaction.train import Trainer
from tests.getiaction.train.runs import BATCH, SEED, SMALL

type Step = tuple[list[int], float]
LOG = "log-{rank}.jsonl"
# Leaves episode 0 to train on: 9 frames, so 2 batches an epoch, and a validation after each.
HELD_OUT: dict[str, Any] = {"episodes": [0, 2], "val_split": 0.3, "limits": {"max_epochs": 4}}


class Log(Callback):
    """Append the frames and the loss of every step to a file, then perhaps die."""

    def __init__(self, run_dir: Path, die_at: int | None) -> None:
        self.run_dir = run_dir
        self.die_at = die_at

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        with (self.run_dir / LOG.format(rank=trainer.global_rank)).open("a") as log:
            log.write(json.dumps([batch["index"].tolist(), outputs["loss"].item()]) + "\n")
        if trainer.global_step == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)


def run(
    root: Path,
    run_dir: Path,
    *,
    resume_from: Path | None = None,
    die_at: int | None = None,
    devices: int = 1,
    limits: dict[str, Any] | None = None,
    saving: dict[str, Any] | None = None,
    **data_options: Any,
) -> list[Step]:
    """Train an ACT with dropout and VAE; return the frames and the loss of every step."""
    set_seed(SEED)
    data = LeRobotDataModule(root=root, train_batch_size=BATCH, seed=SEED, **data_options)
    run_dir.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(
        **(limits or {"max_epochs": 3}),
        accelerator="cpu",
        devices=devices,
        strategy="auto" if devices == 1 else "ddp_fork_find_unused_parameters_true",
        # Dies before the checkpoint of the same step is written.
        callbacks=[
            Log(run_dir, die_at),
            ModelCheckpoint(
                run_dir, "{step}", save_top_k=-1, **(saving or {"every_n_train_steps": 1})
            ),
        ],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        val_check_interval=0.5,
        default_root_dir=run_dir,
    )
    trainer.fit(LeRobotPolicy("act", **SMALL), datamodule=data, ckpt_path=resume_from)
    return read(run_dir)


def read(run_dir: Path, rank: int = 0) -> list[Step]:
    """Return what :class:`Log` wrote in the process ``rank``."""
    lines = (run_dir / LOG.format(rank=rank)).read_text().splitlines()
    return [tuple(json.loads(line)) for line in lines]


if __name__ == "__main__":
    data, directory, options = sys.argv[1:]
    run(Path(data), Path(directory), **json.loads(options))
