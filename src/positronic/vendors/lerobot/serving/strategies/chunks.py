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
    """Predicts the chunks of all sessions in one batch; each has its own LeRobot ensembler.

    LeRobot averages before it unnormalises, and so does the torch backend here, bit for bit. Other
    backends return unnormalised actions: their average differs by rounding only.
    """

    every_step = True
    n_actions = 1

    def __init__(self, eager: TorchBackend, backend: Backend) -> None:
        """Ensemble the chunks of ``backend``, with the ensembler of ``eager``."""
        # Not kept if unused: its weights would stay in memory beside the backend's.
        self._eager = eager if backend is eager else None
        self._backend = backend
        self._fresh = copy.deepcopy(eager.policy.temporal_ensembler)
        self._fresh.reset()

    @torch.inference_mode()
    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """See `Strategy.predict`; the network runs once."""
        chunks = self._chunks(stacked(requests))
        # Copied, because update() modifies its state in place.
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
    """Answers each observation with a chunk, from any backend."""

    every_step = False

    def __init__(self, backend: Backend, n_action_steps: int) -> None:
        """Play the first ``n_action_steps`` actions of each chunk of ``backend``."""
        self.n_actions = n_action_steps
        self._backend = backend

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """See `Strategy.predict`; all in one batch."""
        chunks = self._backend.predict_chunk(stacked(requests))
        return [Prediction(chunk[: self.n_actions]) for chunk in chunks]


def stacked(requests: Sequence[Request]) -> Mapping[str, NDArray[Any]]:
    """Return the observations of the requests as a batch, (B, ...)."""
    first, *others = (request.observation for request in requests)
    if not others:
        return {key: value[np.newaxis] for key, value in first.items()}
    return {key: np.stack([r.observation[key] for r in requests]) for key in first}
