"""Vector environment of one gym: several environments in this process or in subprocesses."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from getiaction.errors import GetiactionError
from getiaction.gyms.base import FPS, Gym
from getiaction.gyms.one_episode import IDLE, open_environment
from getiaction.gyms.resolve import OpenGym

LIMIT = 1000  # default limit in steps, if neither the caller nor the environment sets one

Flags = NDArray[np.bool_]

_GONE = (
    EOFError,
    BrokenPipeError,
    ConnectionResetError,
)  # the process at the other end of a pipe has died


@dataclass(frozen=True)
class Moment:
    """Results of all environments at one step; arrays have one row per environment.

    ``success`` is valid only if ``measured``, i.e. if the environment reports it.
    """

    raw: Any
    reward: NDArray[np.float64]
    terminated: Flags
    truncated: Flags
    success: Flags
    measured: Flags


class Environments:
    """``num_envs`` environments of ``gym``, each playing one episode at a time.

    A context manager: leaving it closes the environments and ends their processes, also after
    Ctrl-C.

    Args:
        gym: The gym.
        num_envs: Number of environments.
        async_envs: Run each in its own process.
        render: Create them with rendering, for :meth:`render`.

    Raises:
        GetiactionError: the environment cannot be created.
    """

    def __init__(
        self, gym: Gym, num_envs: int = 1, *, async_envs: bool = False, render: bool = False
    ) -> None:
        if num_envs < 1:
            raise GetiactionError(f"num_envs is {num_envs}; expected 1 or more")
        self.gym = gym
        self.num_envs = num_envs
        self._borrowed = isinstance(gym, OpenGym)
        if self._borrowed and (num_envs > 1 or async_envs):
            raise GetiactionError(
                f"{gym.name} is one open environment; parallel environments need a Gym or a "
                "Gymnasium id, from which they can be created"
            )
        make = [partial(open_environment, gym, render, os.getpid())] * num_envs
        self._vector: Any
        # Only reset() resets an environment, so steps of another episode are never counted.
        mode = AutoresetMode.DISABLED
        if async_envs:
            # A forked copy of a process with threads or a GPU may hang.
            self._vector = self._call(
                partial(AsyncVectorEnv, make, context="forkserver", autoreset_mode=mode)
            )
        else:
            self._vector = SyncVectorEnv(make, autoreset_mode=mode)
        self._seeds: list[int | None] = []
        self._steps = 0
        self.tasks: list[str] = [""] * num_envs

    @property
    def vector(self) -> Any:
        """The Gymnasium vector environment."""
        return self._vector

    @property
    def fps(self) -> float:
        """Steps per second, from the environment's metadata."""
        return float(self._vector.metadata.get("render_fps") or FPS)

    @property
    def action_shape(self) -> tuple[int, ...]:
        """Shape of one environment's action."""
        return tuple(self._vector.single_action_space.shape or ())

    def max_steps(self, limit: int | None = None) -> int:
        """Return the maximum steps of an episode: ``limit``, else the gym's, else 1000."""
        return limit or self.gym.get_max_episode_steps() or LIMIT

    def reset(self, seeds: Sequence[int]) -> Any:
        """Start an episode for each seed; other environments are idle.

        Returns the raw observations, with a leading dimension ``num_envs``.
        """
        self._seeds = [*seeds, *[IDLE] * (self.num_envs - len(seeds))]
        self._steps = 0
        raw, info = self._call(partial(self._vector.reset, seed=self._seeds))
        self._check(info)
        self.tasks = [self.gym.task or task or "" for task in info["task"]]
        return raw

    def observation(self, raw: Any, span: slice) -> dict[str, Any]:
        """Return the observations of some environments with LeRobot's keys, and the task."""
        seen = self.gym.to_observation(_rows(raw, span))
        return {"task": self.tasks[span]} | seen

    def step(self, actions: NDArray[Any]) -> Moment:
        """Step every unfinished episode with its row of ``actions``."""
        self._steps += 1
        raw, reward, _, _, info = self._call(partial(self._vector.step, actions))
        self._check(info)
        none = np.zeros(self.num_envs, dtype=np.bool_)
        flags = (info.get(key, none) for key in ("terminated", "truncated"))
        # Under the name with an underscore, Gymnasium marks the environments that reported it.
        told = (info.get(key, none) for key in ("is_success", "_is_success"))
        return Moment(raw, np.asarray(reward, dtype=np.float64), *flags, *told)

    def render(self) -> list[NDArray[np.uint8] | None]:
        """Return each environment's image, uint8 (H, W, 3); None if its episode is over."""
        return list(self._call(partial(self._vector.call, "render")))

    def close(self, *, at_once: bool = False) -> None:
        """Close the environments; ``at_once`` terminates their processes."""
        if self._borrowed or self._vector.closed:
            return
        try:
            if not at_once:
                self._vector.close()
        except _GONE:
            at_once = True
        if at_once and isinstance(self._vector, AsyncVectorEnv):
            for process in self._vector.processes:
                process.terminate()
            for process in self._vector.processes:
                process.join()
            self._vector.closed = True
        elif at_once:
            self._vector.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # After Ctrl-C the processes may be in the middle of a step.
        self.close(at_once=kind is not None and not issubclass(kind, Exception))

    def _call(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except _GONE as error:
            raise GetiactionError(
                f"a process with an environment of {self.gym.name} has died; run it with "
                "async_envs=False to see why (a script with async_envs=True needs an "
                "`if __name__ == '__main__':` guard)"
            ) from error

    def _check(self, info: dict[str, Any]) -> None:
        for lane, failure in enumerate(info.get("failure", ())):
            if failure is not None:
                when = f"at step {self._steps}" if self._steps else "at its reset"
                error = GetiactionError(
                    f"{self.gym.name} failed in the episode of seed {self._seeds[lane]}, {when}: "
                    f"{failure}"
                )
                error.add_note(str(info["trace"][lane]))
                raise error


def _rows(raw: Any, span: slice) -> Any:
    if isinstance(raw, dict):
        return {key: _rows(value, span) for key, value in raw.items()}
    return raw[span]
