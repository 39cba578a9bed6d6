"""Temporal ensembling strategy for ACT: a chunk at every step, averaged with those before."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray

from positronic.vendors.lerobot.serving.backends.base import Backend
from positronic.vendors.lerobot.serving.backends.torch_backend import TorchBackend
from positronic.vendors.lerobot.serving.strategies.base import Prediction, Request
from positronic.vendors.lerobot.serving.strategies.chunks import stacked


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
