"""Inference strategy interface: a session's request in, its prediction out.

A chunk policy answers one observation with a chunk. All others predict at every control step the
action that LeRobot's ``select_action`` would give. The memory of such a policy belongs to the
session: `Strategy.predict` takes it in a `Request` and returns the updated one in a `Prediction`,
so that a request that is refused, fails or is retried has no side effects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

# Codec output: float32 vectors (n,), uint8 images (H, W, 3).
Observation = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Request:
    """One session's observation, and its history."""

    observation: Observation
    task: str = ""
    unseen: tuple[Observation, ...] = ()
    """Earlier observations that `memory` lacks, oldest first: no prediction was needed then."""
    memory: Any = None
    """Memory of the last prediction; None at the start of the episode."""
    seed: int = 0
    """Seed of the session's random numbers; used at the start of the episode."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The actions to play, float32 (T, A) in the dataset's units, and the updated memory."""

    actions: NDArray[np.float32]
    memory: Any = None


class Strategy(Protocol):
    """Predicts for many independent sessions.

    Attributes:
        every_step: Whether each observation is answered with one action, not with a chunk.
        n_actions: Number of actions of one prediction.
    """

    every_step: bool
    n_actions: int

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """Predict for several sessions, without modifying their requests."""
