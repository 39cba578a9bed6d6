"""Policy base class: a Lightning module that gives actions for observations."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from getiaction.config import FromConfig
from getiaction.policies.rollouts import Evaluated

__all__ = ["Batch", "Policy"]

type Batch = dict[str, Any]
"""Observations or training samples by LeRobot's keys, with a batch dimension."""


class Policy(Evaluated, FromConfig, ABC):
    """A policy to train with a Trainer and to run in rollouts.

    Observations are dicts with LeRobot's keys and a batch dimension, as the dataset has them before
    any normalisation: ``observation.state`` float32 (B, n), ``observation.images.<camera>`` float32
    (B, 3, H, W) in [0, 1] or uint8 in 0..255, ``task`` a list of B strings. Actions come out in the
    units of the dataset, float32, on the CPU.
    """

    @abstractmethod
    def select_action(self, observation: Batch) -> Tensor:
        """Return the next action (B, A), and update the episode's memory."""

    @abstractmethod
    def predict_action_chunk(self, observation: Batch) -> Tensor:
        """Return the actions (B, T, A) that the policy plans from this observation."""

    @abstractmethod
    def reset(self) -> None:
        """Start a new episode: empty action queues and histories."""

    @abstractmethod
    def session(self) -> "Policy":
        """Return a policy with the same weights and its own memory of an episode."""
