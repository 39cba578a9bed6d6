"""The same small training run, by LeRobot's own script and by getiaction."""

import copy
import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
import torchvision
from accelerate.state import AcceleratorState
from lerobot.configs.default import DatasetConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.optim.schedulers import LRSchedulerConfig
from lerobot.utils.random_utils import set_seed
from lightning.pytorch import Callback
from torchvision.models.resnet import BasicBlock, ResNet

from getiaction.data import LeRobotDataModule
from getiaction.data.frames import video_backend
from getiaction.gyms import GymnasiumGym
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


class NarrowResNet(ResNet):
    """ResNet-18 with an eighth of its channels; most of a step would go into its 11M weights."""

    def __init__(self, **options: Any) -> None:
        super().__init__(BasicBlock, [2, 2, 2, 2], **options)
        self.fc = torch.nn.Linear(512 // 8, 1000)

    def _make_layer(self, block: Any, planes: int, *args: Any, **options: Any) -> Any:
        return super()._make_layer(block, planes // 8, *args, **options)


def resnet_narrow(weights: None = None, **options: Any) -> NarrowResNet:
    """Make the backbone as LeRobot has torchvision make it: by name, without weights."""
    return NarrowResNet(**options)


# LeRobot's policies look the name up here.
torchvision.models.resnet_narrow = resnet_narrow

_NARROW = {"vision_backbone": "resnet_narrow", "pretrained_backbone_weights": None}
# Each with random crops, noise or dropout drawn from the global random numbers, and with every
# warmup and change of phase well within 40 steps.
POLICIES: dict[str, dict[str, Any]] = {
    "act": {**SMALL, **_NARROW},
    "diffusion": {
        **_NARROW,
        "n_obs_steps": 2,
        "horizon": 8,
        "n_action_steps": 4,
        "crop_shape": [44, 44],
        "spatial_softmax_num_keypoints": 4,
        "down_dims": [16, 32],
        "n_groups": 4,
        "diffusion_step_embed_dim": 16,
        "do_mask_loss_for_padding": True,
        "optimizer_lr": 1e-3,
        "scheduler_warmup_steps": 6,
        "num_inference_steps": 2,
    },
    "vqbet": {
        **_NARROW,
        "n_obs_steps": 2,
        "n_action_pred_token": 2,
        "action_chunk_size": 3,
        "crop_shape": [44, 44],
        "spatial_softmax_num_keypoints": 4,
        "n_vqvae_training_steps": 15,
        "vqvae_n_embed": 4,
        "vqvae_embedding_dim": 8,
        "vqvae_enc_hidden_dim": 8,
        "gpt_block_size": 16,
        "gpt_input_dim": 16,
        "gpt_output_dim": 16,
        "gpt_n_layer": 1,
        "gpt_n_head": 2,
        "gpt_hidden_dim": 16,
        "scheduler_warmup_steps": 5,
    },
    "tdmpc": {
        "horizon": 3,
        "image_encoder_hidden_dim": 8,
        "state_encoder_hidden_dim": 16,
        "latent_dim": 8,
        "q_ensemble_size": 2,
        "mlp_dim": 16,
        "optimizer_lr": 1e-3,
        "target_model_momentum": 0.9,
        "cem_iterations": 1,
        "n_gaussian_samples": 8,
        "n_pi_samples": 2,
        "n_elites": 4,
    },
}


class Looking(gymnasium.Env[dict[str, Any], Any]):
    """Random pictures and numbers of the shapes in the dataset ``policies_root``.

    It draws from every global random stream, as other people's environments do.
    """

    episodes = 0

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.action_space = gymnasium.spaces.Box(-np.inf, np.inf, (8,), np.float32)
        self.observation_space = gymnasium.spaces.Dict(
            {
                "pixels": gymnasium.spaces.Box(0, 255, (48, 48, 3), np.uint8),
                "agent_pos": gymnasium.spaces.Box(-np.inf, np.inf, (8,), np.float32),
            }
        )

    def _seen(self) -> dict[str, Any]:
        return {
            "pixels": np.random.randint(0, 256, (48, 48, 3), np.uint8),
            "agent_pos": torch.rand(8).numpy() + np.float32(random.random()),
        }

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        Looking.episodes += 1
        return self._seen(), {}

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        return self._seen(), float(action[0]), False, False, {"is_success": False}


gymnasium.register("tests/Looking-v0", entry_point=f"{__name__}:Looking", max_episode_steps=3)


def looking() -> GymnasiumGym:
    """The environment :class:`Looking`, its picture under the dataset's name."""
    return GymnasiumGym(
        "tests/Looking-v0",
        observation_keys={"pixels": "observation.images.top", "agent_pos": "observation.state"},
    )


# Three epochs and more.
STEPS = 40
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
        if "val/loss" in trainer.callback_metrics:
            self.held_out.append(trainer.callback_metrics["val/loss"].item())


def train_ours(
    root: Path,
    run_dir: Path,
    *,
    steps: int,
    policy_name: str = "act",
    save_freq: int = 0,
    scheduler: LRSchedulerConfig | None = None,
    resume_from: Path | None = None,
    total_steps: int | None = None,
    validate: bool = True,
    complete: Callable[[Path], None] | None = None,
    use_amp: bool = False,
    policy_class: type[LeRobotPolicy] = LeRobotPolicy,
    data_class: type[LeRobotDataModule] = LeRobotDataModule,
    trainer_options: dict[str, Any] | None = None,
    ckpt_path: Path | None = None,
    **data_options: Any,
) -> Result:
    """Train up to step ``steps`` of a run that is to have ``total_steps``."""
    data = data_class(root=root, train_batch_size=BATCH, seed=SEED, **data_options)
    set_seed(SEED)
    total_steps = total_steps or steps
    policy = policy_class(
        policy_name,
        scheduler=scheduler,
        total_steps=total_steps,
        use_amp=use_amp,
        **POLICIES[policy_name],
    )
    losses = Losses()
    callbacks: list[Callback] = [
        losses,
        NativeCheckpoint(run_dir, total_steps=total_steps, save_freq=save_freq, complete=complete),
    ]
    if resume_from is not None:
        policy.create(data.meta, pretrained=resume_from / "pretrained_model")
        callbacks.append(NativeResume(resume_from))
    trainer_options = dict(trainer_options or {})
    trainer = Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        callbacks=callbacks + trainer_options.pop("callbacks", []),
        logger=False,
        enable_progress_bar=False,
        limit_val_batches=1.0 if validate else 0,
        default_root_dir=run_dir,
        **{
            "precision": precision_of(policy.config, "cpu"),
            "enable_checkpointing": False,
            "enable_model_summary": False,
            **trainer_options,
        },
    )
    trainer.fit(policy, datamodule=data, ckpt_path=ckpt_path)
    return Result(losses.values, copy.deepcopy(policy.lerobot_policy.state_dict()), losses.held_out)


def train_natively(
    root: Path,
    run_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    steps: int,
    policy_name: str = "act",
    scheduler: LRSchedulerConfig | None = None,
    use_amp: bool = False,
    eval_split: float = 0.0,
) -> Result:
    """Run ``lerobot_train.train`` and listen at its ``update_policy``."""
    # Late: it imports the reward models and, where it is installed, transformers.
    from lerobot.scripts import lerobot_train

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
    config = policy_config(policy_name, {**POLICIES[policy_name], "use_amp": use_amp})
    if scheduler is not None:
        monkeypatch.setattr(type(config), "get_scheduler_preset", lambda self: scheduler)
    lerobot_train.train(
        TrainPipelineConfig(
            dataset=DatasetConfig(
                "local/small",
                root=str(root),
                video_backend=video_backend(),
                eval_split=eval_split,
            ),
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
