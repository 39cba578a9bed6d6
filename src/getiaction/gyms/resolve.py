"""Resolve a gym, a Gymnasium id or an open environment to a gym."""

from typing import Any

import gymnasium

from getiaction.errors import GetiactionError
from getiaction.gyms.aloha import AlohaGym
from getiaction.gyms.base import Gym
from getiaction.gyms.pusht import PushTGym
from getiaction.gyms.registered import GymnasiumGym


class OpenGym(Gym):
    """An open environment of the caller, who closes it."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__()
        self._env = env

    @property
    def name(self) -> str:
        """The id without namespace, or the class of an environment without an id."""
        spec = self.env.spec
        return spec.id.rpartition("/")[2] if spec else type(self.env.unwrapped).__name__

    def make(self, *, render: bool = False) -> gymnasium.Env[Any, Any]:
        """Return the environment."""
        assert self._env is not None
        if render and self._env.render_mode is None:
            raise GetiactionError(
                f"{self.name} was created without rendering: create it with render_mode='rgb_array'"
            )
        return self._env

    def get_max_episode_steps(self) -> int | None:
        """Return the environment's limit, if it has one."""
        spec = self.env.spec
        return spec.max_episode_steps if spec else None


def as_gym(env: Any) -> Gym:
    """Return the gym for a Gym, a Gymnasium id, or an open environment.

    Environments for which LeRobot has a config get its arguments: ``gym_pusht/PushT-v0`` is
    ``PushTGym()``.

    Raises:
        GetiactionError: it is something else.
    """
    if isinstance(env, Gym):
        return env
    if isinstance(env, gymnasium.Env):
        return OpenGym(env)
    if not isinstance(env, str):
        raise GetiactionError(
            f"{type(env).__name__} is not an environment; expected a Gym, a Gymnasium id or a "
            "gymnasium.Env"
        )
    if env == "gym_pusht/PushT-v0":
        return PushTGym()
    if env.startswith("gym_aloha/"):
        return AlohaGym(env)
    return GymnasiumGym(env)
