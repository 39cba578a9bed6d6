"""Small policies: a real one, one that draws from every random stream, one that does nothing."""

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from lerobot.utils.random_utils import set_seed
from torch import Tensor

from getiaction.policies.lerobot import LeRobotPolicy
from tests.getiaction.train.runs import SMALL


class Noisy:
    """Draws its actions from every global stream, and remembers its episode."""

    def reset(self) -> None:
        self.steps = 0
        self.offset = torch.rand(())

    def select_action(self, observation: dict[str, Any]) -> Tensor:
        self.steps += 1
        drawn = torch.randn(len(observation["task"]), 2)
        drawn += random.random() + np.random.rand() + self.offset
        position: Tensor = observation["observation.state"]
        return drawn / self.steps - 0.1 * position


class Still:
    """Does nothing."""

    def reset(self) -> None:
        pass

    def select_action(self, observation: dict[str, Any]) -> Tensor:
        return torch.zeros(len(observation["task"]), 2)


def small_act(center: float, spread: float, **shapes: tuple[int, ...]) -> LeRobotPolicy:
    """An untrained ACT whose actions lie around ``center``; it draws no random numbers."""
    features: dict[str, Any] = {}
    stats: dict[str, Any] = {}
    for name, shape in shapes.items():
        key = name if name == "action" else f"observation.{name}"
        if len(shape) == 3:
            names = ["height", "width", "channels"]
            features[key] = {"dtype": "image", "shape": shape, "names": names}
            stats[key] = {"mean": np.full((3, 1, 1), 0.5), "std": np.full((3, 1, 1), 0.2)}
        else:
            features[key] = {"dtype": "float32", "shape": shape, "names": None}
            stats[key] = {"mean": np.full(shape, center), "std": np.full(shape, spread)}
    set_seed(3)
    policy = LeRobotPolicy("act", **SMALL, vision_backbone="resnet_narrow")
    return policy.create(SimpleNamespace(features=features, stats=stats))
