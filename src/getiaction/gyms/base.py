"""Gym base class: creates an environment and converts its observations for a policy."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from getiaction.errors import GetiactionError

if TYPE_CHECKING:
    from torch import Tensor

# Keys known to LeRobot's preprocess_observation.
_KNOWN = ("pixels", "environment_state", "agent_pos", "robot_state")
_PREFIX = "observation."


type Observation = dict[str, Any]
FPS = 30  # LeRobot's default for environments without render_fps


def lerobot_observation(
    raw: Any, observation_keys: Mapping[str, str] | None = None
) -> "dict[str, Tensor]":
    """Rename and convert a batch of raw observations as LeRobot's evaluation does.

    ``pixels`` become ``observation.image`` (``observation.images.<camera>`` if there are several),
    ``agent_pos`` ``observation.state``, ``environment_state`` ``observation.environment_state``; a
    key that begins with ``observation.`` is unchanged. A single array is treated as ``pixels``
    (uint8, (B, H, W, C)) or ``agent_pos``.

    Args:
        raw: The environment's observation, each array with a leading batch dimension.
        observation_keys: The raw keys to use and their LeRobot names, instead of the rule above;
            ``/`` separates keys of nested dicts: ``{"pixels/top": "observation.images.top"}``.

    Returns:
        Images float32 (B, C, H, W) in [0, 1]; everything else float32 (B, n).

    Raises:
        GetiactionError: a key has no LeRobot name, or is missing.
    """
    if not isinstance(raw, Mapping):
        raw = {"pixels" if np.ndim(raw) == 4 else "agent_pos": np.asarray(raw)}
    if observation_keys is not None:
        return {name: _tensor(_find(raw, key)) for key, name in observation_keys.items()}
    unknown = [key for key in raw if key not in _KNOWN and not key.startswith(_PREFIX)]
    if unknown:
        raise GetiactionError(
            f"LeRobot has no name for {', '.join(unknown)} of this environment: name them "
            "with observation_keys={'raw key': 'observation.…'}, or write a Gym with its "
            "own to_observation"
        )
    from lerobot.envs.utils import preprocess_observation

    own = {key: value for key, value in raw.items() if key in _KNOWN}
    converted: dict[str, Tensor] = preprocess_observation(own)
    return converted | {
        key: _tensor(value) for key, value in raw.items() if key.startswith(_PREFIX)
    }


def _find(raw: Mapping[str, Any], key: str) -> Any:
    value: Any = raw
    for part in (key,) if key in raw else key.split("/"):
        if not isinstance(value, Mapping) or part not in value:
            raise GetiactionError(
                f"the environment has no {key!r}, which is in observation_keys; "
                f"it has {', '.join(raw)}"
            )
        value = value[part]
    return value


def _tensor(value: Any) -> "Tensor":
    import torch

    array = np.asarray(value)
    if array.dtype == np.uint8 and array.ndim == 4:
        return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous().to(torch.float32) / 255
    if array.ndim == 1:
        array = array[:, np.newaxis]
    return torch.from_numpy(array.astype(np.float32))


def batch_of_one(raw: Any) -> Any:
    """Give every array of one environment's observation a leading dimension of 1."""
    if isinstance(raw, Mapping):
        return {key: batch_of_one(value) for key, value in raw.items()}
    return np.asarray(raw)[np.newaxis]


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
            :func:`getiaction.gyms.base.lerobot_observation`.
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
