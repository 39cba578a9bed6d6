"""Chunk strategies for ACT: chunks as predicted, or averaged by temporal ensemble."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from positronic.vendors.lerobot.serving.backends.base import Backend
from positronic.vendors.lerobot.serving.backends.torch_backend import TorchBackend
from positronic.vendors.lerobot.serving.strategies.base import Prediction, Request


class TemporalEnsemble:
    """Predicts the chunks of all sessions at once; each has LeRobot's ensembler for itself.

    LeRobot averages before it returns to the dataset's units, and so does torch here, to the same
    bits. Other backends give these units at once: an average of them is the same but for rounding.
    """

    every_step = True
    n_actions = 1

    def __init__(self, eager: TorchBackend, backend: Backend) -> None:
        """Ensemble what ``backend`` predicts, in the way of ``eager``."""
        # Not kept in vain: its weights would stay beside those of the other.
        self._eager = eager if backend is eager else None
        self._backend = backend
        self._fresh = copy.deepcopy(eager.policy.temporal_ensembler)
        self._fresh.reset()

    @torch.inference_mode()
    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """See `Strategy.predict`; the network runs once."""
        chunks = self._chunks(stacked(requests))
        # Its update writes into what it holds.
        ensemblers = [copy.deepcopy(request.memory or self._fresh) for request in requests]
        rows = [e.update(chunks[i : i + 1]) for i, e in enumerate(ensemblers)]
        actions = torch.cat(rows)
        if self._eager is not None:
            actions = self._eager.post(actions)
        array = actions.cpu().numpy()
        return [Prediction(array[i : i + 1], e) for i, e in enumerate(ensemblers)]

    def _chunks(self, batch: Mapping[str, NDArray[Any]]) -> Any:
        if self._eager is None:
            return torch.from_numpy(self._backend.predict_chunk(batch))
        return self._eager.policy.predict_action_chunk(
            self._eager.pre(self._eager.observation(batch))
        )


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
