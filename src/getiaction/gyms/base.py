"""Gym base class: creates an environment and converts its observations for a policy."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from getiaction.errors import GetiactionError
from getiaction.gyms.observations import batch_of_one, lerobot_observation

if TYPE_CHECKING:
    from torch import Tensor

type Observation = dict[str, Any]

FPS = 30  # LeRobot's default for environments without render_fps


class Gym(ABC):
    """A picklable description of an environment, which is created when needed.

    Rollouts create their own environments by :meth:`make`, possibly several in parallel. For your
    own loop there is another one behind :meth:`reset`, :meth:`step`, :meth:`render` and
    :meth:`close`, with a policy's interface: observations have LeRobot's keys, a batch dimension of
    1 and the task, and an action may be the tensor (1, A) returned by a policy.

    Args:
        task: Task given to the policy, in words; if empty, the environment's own.
        max_episode_steps: Steps after which an episode is truncated.
        rename_map: Observation keys to rename, as in LeRobot's ``--rename_map``:
            ``{"observation.image": "observation.images.top"}``.
        observation_keys: Raw keys to use and their LeRobot names, instead of LeRobot's rule; see
            :func:`getiaction.gyms.observations.lerobot_observation`.
    """

    def __init__(
        self,
        *,
        task: str = "",
        max_episode_steps: int | None = None,
        rename_map: Mapping[str, str] | None = None,
        observation_keys: Mapping[str, str] | None = None,
    ) -> None:
        if max_episode_steps is not None and max_episode_steps < 1:
            raise GetiactionError(
                f"max_episode_steps is {max_episode_steps}; expected 1 or more, or None for the "
                "environment's own limit"
            )
        self.task = task
        self.max_episode_steps = max_episode_steps
        self.rename_map = dict(rename_map or {})
        self.observation_keys = None if observation_keys is None else dict(observation_keys)
        self._env: gymnasium.Env[Any, Any] | None = None

    @property
    def name(self) -> str:
        """Name in messages and metrics."""
        return type(self).__name__

    @property
    def fps(self) -> float:
        """Steps per second, from the environment's ``metadata["render_fps"]``."""
        return float(self.env.metadata.get("render_fps") or FPS)

    @abstractmethod
    def make(self, *, render: bool = False) -> gymnasium.Env[Any, Any]:
        """Create an environment.

        Args:
            render: Whether its ``render()`` must return ``rgb_array`` images.

        Raises:
            GetiactionError: it cannot be created; the message says what to install.
        """

    def to_observation(self, raw: Any) -> Observation:
        """Convert a batch of raw observations to LeRobot's keys.

        Args:
            raw: Observations of environments from :meth:`make`, with a leading batch dimension.

        Returns:
            Images float32 (B, 3, H, W) in [0, 1]; everything else float32 (B, n).
        """
        observation = lerobot_observation(raw, self.observation_keys)
        return {self.rename_map.get(key, key): value for key, value in observation.items()}

    def get_max_episode_steps(self) -> int | None:
        """Return the steps after which an episode is truncated; None without a limit."""
        return self.max_episode_steps

    # -- one environment, for your own loop

    @property
    def env(self) -> gymnasium.Env[Any, Any]:
        """The environment behind :meth:`reset` and :meth:`step`, created on first use."""
        if self._env is None:
            self._env = self.make()
        return self._env

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode; return the policy's observation (B = 1) and the environment's info."""
        raw, info = self.env.reset(seed=seed, options=options)
        return self._observe(raw), info

    def step(
        self, action: "Tensor | np.ndarray[Any, Any]"
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Step; return observation (B = 1), reward, terminated, truncated, info.

        Args:
            action: (A,), or (1, A) as a policy returns it; a tensor or an array.
        """
        array = np.asarray(action)
        if array.ndim == len(self.env.action_space.shape or ()) + 1 and len(array) == 1:
            array = array[0]
        raw, reward, terminated, truncated, info = self.env.step(array)
        return self._observe(raw), float(reward), bool(terminated), bool(truncated), info

    def render(self) -> Any:
        """Return the rendered image, uint8 (H, W, 3)."""
        if self.env.render_mode is None:
            raise GetiactionError(
                f"gym {self.name!r} was created without rendering; give it render_mode='rgb_array'"
            )
        return self.env.render()

    def sample_action(self) -> Any:
        """Return a random action (A,) of the environment's action space."""
        return self.env.action_space.sample()

    def close(self) -> None:
        """Close the environment; may be called repeatedly, and the gym can be used again."""
        if self._env is not None:
            self._env.close()
            self._env = None

    def _observe(self, raw: Any) -> Observation:
        return self.to_observation(batch_of_one(raw)) | {"task": [self.task or task_of(self.env)]}

    def __getstate__(self) -> dict[str, Any]:
        # An open environment belongs to the process that made it.
        return self.__dict__ | {"_env": None}


def task_of(env: gymnasium.Env[Any, Any]) -> str:
    """The environment's own task, looked up as by LeRobot; empty if it has none."""
    for attribute in ("task_description", "task"):
        text = getattr(env.unwrapped, attribute, None)
        if isinstance(text, str):
            return text
    return ""
