"""Environments of other packages, such as PushT, for the rollout harness.

Their policies were trained on a LeRobot dataset's features as they are: they see LeRobot's keys,
and their ``action`` vectors are the environment's.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from getiaction.gyms import as_gym
from getiaction.gyms.base import batch_of_one, task_of
from getiaction.gyms.randomness import EpisodeRandomness
from getiaction.gyms.success import success_of
from positronic.errors import SessionError

Observation = dict[str, NDArray[Any]]


class GymWorld(gymnasium.Env[Observation, NDArray[np.float64]]):
    """One of `getiaction`'s environments: vectors float32 ``(n,)``, images uint8 ``(H, W, 3)``.

    It has no time limit of its own; the driver's applies.
    """

    def __init__(self, env_id: str) -> None:
        """Open the environment.

        Raises:
            GetiactionError: there is no such one, or its package is missing.
        """
        self._gym = as_gym(env_id)
        self._gym.max_episode_steps = -1  # in Gymnasium: none
        self._env = self._gym.env
        self._id = env_id
        self._random = EpisodeRandomness(0)
        self._last: Observation = {}
        self.action_space = self._env.action_space
        self.control_fps = round(self._gym.fps)
        self.task = task_of(self._env)
        self.reset(seed=0)

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the images."""
        return tuple(name for name, value in self._last.items() if value.ndim == 3)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the first image; 0 without one."""
        shapes = [value.shape[:2] for value in self._last.values() if value.ndim == 3]
        return (shapes[0][0], shapes[0][1]) if shapes else (0, 0)

    @property
    def statics(self) -> dict[str, Any]:
        """Static values to record with each episode."""
        return {"control_fps": self.control_fps, "simulation.env_id": self._id}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start the episode of ``seed``, also where an environment draws from global streams."""
        self._random = EpisodeRandomness(seed or 0)
        with self._random.active():
            raw, info = self._env.reset(seed=seed, options=options)
        return self._observe(raw), info

    def step(
        self, action: NDArray[np.float64]
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Step; success is under ``is_success`` in the info."""
        with self._random.active():
            raw, reward, terminated, truncated, info = self._env.step(action)
        info = {**info, "is_success": bool(success_of(info))}
        return self._observe(raw), float(reward), bool(terminated), bool(truncated), info

    def sim_state(self) -> NDArray[np.float64]:
        """The last observation in one vector, which tells two states apart."""
        return np.concatenate([value.ravel().astype(np.float64) for value in self._last.values()])

    def command(self, action: Mapping[str, Any]) -> NDArray[np.float64]:
        """Return a policy's action for `step`.

        Raises:
            SessionError: it is not an ``action`` vector of the environment's size.
        """
        with suppress(TypeError, ValueError):
            vector = np.asarray(action.get("action"), dtype=np.float64)
            if vector.shape == self.action_space.shape and np.isfinite(vector).all():
                return vector
        raise SessionError(
            f"the policy's action has {sorted(action)}; expected an 'action' vector of shape"
            f" {self.action_space.shape}, as {self._id} takes it: choose the environment that it"
            " was trained for with --env"
        )

    def close(self) -> None:
        """Close the environment."""
        self._gym.close()

    def _observe(self, raw: Any) -> Observation:
        self._last = {
            name: _plain(np.asarray(value[0]))
            for name, value in self._gym.to_observation(batch_of_one(raw)).items()
        }
        return self._last


def _plain(value: NDArray[Any]) -> NDArray[Any]:
    """An image (3, H, W) from 0 to 1 as a client sends it; anything else as it is."""
    if value.ndim != 3:
        return value
    return np.ascontiguousarray((255 * value).round().astype(np.uint8).transpose(1, 2, 0))
