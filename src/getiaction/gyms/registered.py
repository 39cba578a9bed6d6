"""GymnasiumGym: environments by their Gymnasium id."""

import importlib
import warnings
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, parse_env_id

from getiaction.errors import GetiactionError
from getiaction.gyms.base import Gym

# Entry points that Gymnasium used until 1.0; they name the module that registers a namespace.
_PLUGINS = "gymnasium.envs"


class GymnasiumGym(Gym):
    """An environment registered with Gymnasium.

    The package that registers it is imported if necessary: ``module:Name-v0`` imports ``module``,
    and ``namespace/Name-v0`` the entry point ``namespace`` in the group ``gymnasium.envs``, or else
    the package ``namespace``.

    Args:
        gym_id: ``gym_pusht/PushT-v0``, ``CartPole-v1``, ``my_package.envs:Mine-v0``.
        task: Task given to the policy, in words; if empty, the environment's own.
        max_episode_steps: Steps after which an episode is truncated; the registered limit if None.
        observation_keys: Raw keys to use and their LeRobot names; see :class:`Gym`.
        rename_map: Observation keys to rename; see :class:`Gym`.
        **make_kwargs: Passed to ``gymnasium.make``; in YAML under ``dict_kwargs``.
    """

    # Extra to install if the namespace's package is missing.
    package = ""
    # Warnings of third-party packages that users cannot fix.
    ignored_warnings: tuple[str, ...] = ()

    def __init__(
        self,
        gym_id: str,
        *,
        task: str = "",
        max_episode_steps: int | None = None,
        observation_keys: Mapping[str, str] | None = None,
        rename_map: Mapping[str, str] | None = None,
        **make_kwargs: Any,
    ) -> None:
        super().__init__(
            task=task,
            max_episode_steps=max_episode_steps,
            rename_map=rename_map,
            observation_keys=observation_keys,
        )
        self.gym_id = gym_id
        # As LeRobot does: the checker's warnings cannot be fixed by users.
        self.make_kwargs = {"disable_env_checker": True} | make_kwargs

    @property
    def name(self) -> str:
        """The id without namespace: ``PushT-v0``."""
        return self.gym_id.rpartition(":")[2].rpartition("/")[2]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.gym_id!r})"

    def make(self, *, render: bool = False) -> gymnasium.Env[Any, Any]:
        """Create an environment; see :meth:`Gym.make`."""
        spec = self._spec()
        kwargs = dict(self.make_kwargs)
        if render:
            kwargs.setdefault("render_mode", "rgb_array")
        try:
            with warnings.catch_warnings():
                for message in self.ignored_warnings:
                    warnings.filterwarnings("ignore", message=message)
                return gymnasium.make(spec, max_episode_steps=self.max_episode_steps, **kwargs)
        except ModuleNotFoundError as error:
            raise self._missing(error) from error
        except TypeError as error:
            raise GetiactionError(f"{self.gym_id} cannot be created: {error}") from error

    def get_max_episode_steps(self) -> int | None:
        """Return the given limit, else the registered one."""
        return self.max_episode_steps or self._spec().max_episode_steps

    def _spec(self) -> EnvSpec:
        module, _, env_id = self.gym_id.rpartition(":")
        try:
            if module:
                importlib.import_module(module)
            else:
                _register(env_id)
            spec: Any = gymnasium.spec(env_id)
        except ModuleNotFoundError as error:
            raise self._missing(error) from error
        except gymnasium.error.Error as error:
            raise GetiactionError(f"there is no environment {self.gym_id!r}: {error}") from error
        assert isinstance(spec, EnvSpec)
        return spec

    def _missing(self, error: ModuleNotFoundError) -> GetiactionError:
        install = self.package and f": pip install 'positronic-lightning[{self.package}]'"
        return GetiactionError(
            f"{self.gym_id} needs the package {error.name!r}, which is not installed"
            f"{install or '; install it, or give its module as in my_module:Env-v0'}"
        )


def _register(env_id: str) -> None:
    """Import the package that registers ``env_id``, unless it is registered."""
    if env_id in gymnasium.registry:
        return
    try:
        namespace = parse_env_id(env_id)[0]
    except gymnasium.error.Error as error:
        raise GetiactionError(
            f"{env_id!r} is not a valid Gymnasium id such as CartPole-v1: {error}"
        ) from error
    if namespace is None:
        return
    plugins = entry_points(group=_PLUGINS, name=namespace)
    if plugins:
        for plugin in plugins:
            plugin.load()
    else:
        importlib.import_module(namespace)
