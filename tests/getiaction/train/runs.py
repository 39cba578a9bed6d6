"""The same small training run, by LeRobot's own script and by getiaction."""

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from lerobot.configs.default import DatasetConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.optim.schedulers import LRSchedulerConfig
from lerobot.scripts import lerobot_train
from lerobot.utils.random_utils import set_seed
from lightning.pytorch import Callback

from getiaction.data import LeRobotDataModule
from getiaction.data.frames import video_backend
from getiaction.policies.lerobot import LeRobotPolicy, policy_config
from getiaction.train import NativeCheckpoint, NativeResume, Trainer, precision_of

# Small, with everything on that ACT can have: VAE, dropout, a clipped gradient, two groups.
SMALL: dict[str, Any] = {
    "chunk_size": 5,
    "n_action_steps": 5,
    "dim_model": 16,
    "n_heads": 2,
    "dim_feedforward": 32,
    "n_encoder_layers": 1,
    "n_vae_encoder_layers": 1,
    "latent_dim": 4,
    "pretrained_backbone_weights": None,
    "optimizer_lr": 1e-3,
    "optimizer_lr_backbone": 1e-4,
    "normalization_mapping": {
        "VISUAL": "MEAN_STD",
        "STATE": "MEAN_STD",
        "ACTION": "MEAN_STD",
        "ENV": "MEAN_STD",
    },
}
SEED = 11
BATCH = 6


@dataclass
class Result:
    """What a run gave: the loss of each step and the final weights."""

    losses: list[float]
    weights: dict[str, torch.Tensor]
    held_out_losses: list[float] = field(default_factory=list)


class Losses(Callback):
    """Record the loss of every step."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.held_out: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *rest: Any) -> None:
        self.values.append(outputs["loss"].item())

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self.held_out.append(trainer.callback_metrics["val/loss"].item())


def train_ours(
    root: Path,
    run_dir: Path,
    *,
    steps: int,
    save_freq: int = 0,
    scheduler: LRSchedulerConfig | None = None,
    resume_from: Path | None = None,
    total_steps: int | None = None,
    validate: bool = True,
    complete: Callable[[Path], None] | None = None,
    use_amp: bool = False,
    **data_options: Any,
) -> Result:
    """Train up to step ``steps`` of a run that is to have ``total_steps``."""
    data = LeRobotDataModule(root=root, train_batch_size=BATCH, seed=SEED, **data_options)
    set_seed(SEED)
    total_steps = total_steps or steps
    policy = LeRobotPolicy(
        "act", scheduler=scheduler, total_steps=total_steps, use_amp=use_amp, **SMALL
    )
    losses = Losses()
    callbacks: list[Callback] = [
        losses,
        NativeCheckpoint(run_dir, total_steps=total_steps, save_freq=save_freq, complete=complete),
    ]
    if resume_from is not None:
        policy.create(data.meta, pretrained=resume_from / "pretrained_model")
        callbacks.append(NativeResume(resume_from))
    trainer = Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        precision=precision_of(policy.config, "cpu"),
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=False,
        limit_val_batches=1.0 if validate else 0,
        default_root_dir=run_dir,
    )
    trainer.fit(policy, datamodule=data)
    return Result(losses.values, copy.deepcopy(policy.lerobot_policy.state_dict()), losses.held_out)


def train_natively(
    root: Path,
    run_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    steps: int,
    scheduler: LRSchedulerConfig | None = None,
    use_amp: bool = False,
) -> Result:
    """Run ``lerobot_train.train`` and listen at its ``update_policy``."""
    losses: list[float] = []
    trained: list[Any] = []
    update_policy = lerobot_train.update_policy

    def listen(tracker: Any, policy: Any, *args: Any, **kwargs: Any) -> Any:
        result = update_policy(tracker, policy, *args, **kwargs)
        losses.append(tracker.loss.val)
        trained[:] = [policy]
        return result

    monkeypatch.setattr(lerobot_train, "update_policy", listen)
    monkeypatch.setattr("sys.argv", ["lerobot-train"])
    # Accelerate keeps the first precision of a process; the next run may want another one.
    AcceleratorState._reset_state(True)
    config = policy_config("act", {**SMALL, "use_amp": use_amp})
    if scheduler is not None:
        monkeypatch.setattr(type(config), "get_scheduler_preset", lambda self: scheduler)
    lerobot_train.train(
        TrainPipelineConfig(
            dataset=DatasetConfig("local/small", root=str(root), video_backend=video_backend()),
            policy=dataclasses.replace(config),
            output_dir=run_dir,
            seed=SEED,
            batch_size=BATCH,
            num_workers=0,
            steps=steps,
            save_checkpoint=False,
            log_freq=0,
        )
    )
    return Result(losses, trained[0].state_dict())
