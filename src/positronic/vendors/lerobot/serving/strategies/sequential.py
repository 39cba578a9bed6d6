"""Sequential strategy: any LeRobot policy by its ``select_action``, one session after the other."""

import threading
from collections.abc import Sequence

import numpy as np
import torch

from getiaction.gyms.randomness import EpisodeRandomness
from getiaction.policies.lerobot.quirks import accept_any_camera
from positronic.vendors.lerobot.serving.backends.torch_backend import TorchBackend
from positronic.vendors.lerobot.serving.strategies.base import Observation, Prediction, Request
from positronic.vendors.lerobot.serving.strategies.memory import Memory

# Sessions use the process's global random streams, one at a time.
_STREAMS = threading.Lock()


class Sequential:
    """Gives each session its own shallow copy of the policy and its own random numbers."""

    every_step = True

    def __init__(self, eager: TorchBackend) -> None:
        """Use the policy of ``eager``."""
        self._eager = eager
        self.n_actions = Memory.empty(eager.policy, None).actions.maxlen or 1
        if eager.policy.config.type == "tdmpc":
            accept_any_camera(eager.policy)
        device = torch.device(eager.device)
        self._devices = (device.index or 0,) if device.type == "cuda" else ()

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """See `Strategy.predict`."""
        with torch.inference_mode():
            return [self._predict(request) for request in requests]

    def _predict(self, request: Request) -> Prediction:
        if request.memory is None:
            randomness = EpisodeRandomness(request.seed, self._devices)
            memory = Memory.empty(self._eager.policy, randomness)
        else:
            memory = request.memory.copy()
        for observation in request.unseen:
            memory.see(self._preprocessed(observation, request.task))
        batch = self._preprocessed(request.observation, request.task)
        with _STREAMS, memory.randomness.active():
            first = memory.twin.select_action(batch)
        actions = torch.stack([first, *memory.take_actions()], dim=1)
        return Prediction(self._eager.post(actions)[0].float().cpu().numpy(), memory)

    def _preprocessed(self, observation: Observation, task: str) -> dict[str, torch.Tensor]:
        batch = {key: value[np.newaxis] for key, value in observation.items()}
        prepared: dict[str, torch.Tensor] = self._eager.pre(self._eager.observation(batch, [task]))
        return prepared
