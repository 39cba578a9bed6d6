"""Chunk strategy for policies without memory, such as ACT: observation in, action chunk out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from positronic.vendors.lerobot.serving.backends.base import Backend
from positronic.vendors.lerobot.serving.strategies.base import Prediction, Request


class Chunks:
    """Acts in chunks, whatever computes them."""

    every_step = False

    def __init__(self, backend: Backend, n_action_steps: int) -> None:
        """Play the first ``n_action_steps`` actions of what ``backend`` predicts."""
        self.n_actions = n_action_steps
        self._backend = backend

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """See `Strategy.predict`; all in one batch."""
        chunks = self._backend.predict_chunk(stacked(requests))
        return [Prediction(chunk[: self.n_actions]) for chunk in chunks]


def stacked(requests: Sequence[Request]) -> Mapping[str, NDArray[Any]]:
    """The observations of the requests, (B, ...)."""
    first, *others = (request.observation for request in requests)
    if not others:
        return {key: value[np.newaxis] for key, value in first.items()}
    return {key: np.stack([r.observation[key] for r in requests]) for key in first}
