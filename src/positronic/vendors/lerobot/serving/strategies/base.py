"""Inference strategy of a policy: a session's request in, its prediction out.

A chunk policy answers one observation with a chunk. All others are asked at every control step and
give the action that LeRobot's ``select_action`` would give there. What such a policy remembers
belongs to the session: `Strategy.predict` takes it in a `Request` and returns it changed, in a
`Prediction`, so that a request that was refused, failed or is tried again leaves no trace.
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
    """One session's observation, and what it has lived through."""

    observation: Observation
    task: str = ""
    unseen: tuple[Observation, ...] = ()
    """Earlier ones, oldest first, that `memory` does not hold yet: no network was needed then."""
    memory: Any = None
    """Of the last prediction; None where the episode begins."""
    seed: int = 0
    """Of the session's random numbers; looked at where the episode begins."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The actions to play, float32 (T, A) in the dataset's units, and what to remember."""

    actions: NDArray[np.float32]
    memory: Any = None


class Strategy(Protocol):
    """Predicts for many sessions that know nothing of each other.

    Attributes:
        every_step: Each observation is answered with one action; otherwise with all of them.
        n_actions: How many actions one prediction gives.
    """

    every_step: bool
    n_actions: int

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """Predict for several sessions; changes nothing that a request holds."""
