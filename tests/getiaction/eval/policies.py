"""Small policies: one that draws from every global random stream, and one that does nothing."""

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor


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
