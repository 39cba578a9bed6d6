"""Each small policy with something to see, and the same through LeRobot alone."""

import copy
from pathlib import Path
from typing import Any

import torch
from lerobot.configs import PreTrainedConfig
from lerobot.datasets import LeRobotDataset, LeRobotDatasetMetadata
from lerobot.policies import get_policy_class, make_pre_post_processors
from torch import Tensor

from getiaction.data.frames import video_backend
from getiaction.policies.lerobot import LeRobotPolicy
from getiaction.train import Trainer
from tests.getiaction.train.runs import POLICIES

NAMES = list(POLICIES)


def metadata(root: Path) -> Any:
    return LeRobotDatasetMetadata("local/small", root=root)


def dataset(root: Path, **options: Any) -> Any:
    return LeRobotDataset("local/small", root=root, video_backend=video_backend(), **options)


def make(root: Path, name: str, seed: int = 3, **fields: Any) -> LeRobotPolicy:
    """Make a policy that can act: VQ-BeT says that it cannot before its codes are found."""
    torch.manual_seed(seed)
    policy = LeRobotPolicy(name, **{**POLICIES[name], **fields}).create(metadata(root))
    if name == "vqbet":
        policy.lerobot_policy.vqbet.action_head.vqvae_model.discretized.fill_(True)
    return policy


def observation(seed: int, batch: int = 1) -> dict[str, Any]:
    """What the robots of ``camera_root`` and ``reward_root`` see."""
    rng = torch.Generator().manual_seed(seed)
    return {
        "observation.state": torch.randn(batch, 8, generator=rng),
        "observation.environment_state": torch.randn(batch, 10, generator=rng),
        "observation.images.top": torch.rand(batch, 3, 48, 48, generator=rng),
        "task": ["task 0"] * batch,
    }


def actions(policy: Any, steps: int = 7, seed: int = 5) -> Tensor:
    """Act for a while, by the same random numbers each time; (steps, B, A)."""
    torch.manual_seed(seed)
    policy.reset()
    return torch.stack([policy.select_action(observation(step)) for step in range(steps)])


class Native:
    """A saved policy as LeRobot's own tools load it and let it act."""

    def __init__(self, path: Path) -> None:
        config = PreTrainedConfig.from_pretrained(path)
        config.device = "cpu"
        self.policy = get_policy_class(config.type).from_pretrained(path, config=config)
        self.before, self.after = make_pre_post_processors(
            config,
            pretrained_path=str(path),
            preprocessor_overrides={"device_processor": {"device": "cpu"}},
        )

    def reset(self) -> None:
        self.policy.reset()

    def select_action(self, seen: dict[str, Any]) -> Tensor:
        chosen: Tensor = self.after(self.policy.select_action(self.before(copy.copy(seen))))
        return chosen


def trainer(run_dir: Path, **options: Any) -> Trainer:
    settings = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "max_steps": 2,
        "max_epochs": -1,
        "default_root_dir": run_dir,
        **options,
    }
    return Trainer(**settings)
