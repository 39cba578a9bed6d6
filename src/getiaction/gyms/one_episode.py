"""Gymnasium wrapper that plays one episode and is not stepped past its end.

Light to import: this is what environment processes load.
"""

import os
import traceback
from typing import Any

import gymnasium
import numpy as np

from foundation.stopping import ignore_terminal
from getiaction.gyms.base import Gym, told_task
from getiaction.gyms.randomness import EpisodeRandomness
from getiaction.gyms.success import told_success

IDLE = None  # the seed of an environment that no episode is wanted of


class OneEpisode(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Plays the episode that ``reset(seed=…)`` begins, and is never stepped past its end.

    A vector of environments goes on until the last episode has ended. Until then a finished
    environment returns its last observation and reward 0, at no cost, and stays finished whatever
    happens: the end is told in ``info`` only, so that nothing resets the environment behind the
    back of whoever counts.

    An environment that draws from the global random streams, which it should not, draws from
    streams of the episode's own. An error is told in ``info["failure"]``, so that a process that
    owns the environment lives to close it.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self._last: Any = None
        self._randomness = EpisodeRandomness(0)
        self._moving = self._moved = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin the episode of ``seed``; with none, stand still from the start."""
        self._moving = self._moved = seed is not IDLE
        # Not the numbers that the policy draws, which is seeded with the seed itself.
        own = np.random.SeedSequence([seed or 0, 1]).generate_state(1)
        self._randomness = EpisodeRandomness(int(own[0]))
        try:
            with self._randomness.active():
                self._last, _ = self.env.reset(seed=seed, options=options)
        except Exception as error:  # anyone's environment; the others' episodes go on
            return self.observation_space.sample(), self._failed(error)
        return self._last, {"task": told_task(self.env)}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step, unless the episode has ended; the end and success are in ``info``.

        ``is_success`` is there only where the environment tells it, by whatever name.
        """
        self._moved = self._moving
        if not self._moving:
            return self._last, 0.0, False, False, {}
        try:
            with self._randomness.active():
                self._last, reward, terminated, truncated, info = self.env.step(action)
        except Exception as error:  # as above
            return self._last, 0.0, False, False, self._failed(error)
        self._moving = not (terminated or truncated)
        told = {"terminated": bool(terminated), "truncated": bool(truncated)}
        success = told_success(info)
        if success is not None:
            told["is_success"] = success
        return self._last, float(reward), False, False, told

    def render(self) -> Any:
        """Return the picture of the present moment; None once the episode is past."""
        return self.env.render() if self._moved else None

    def _failed(self, error: Exception) -> dict[str, Any]:
        self._moving = False
        lines = str(error).splitlines()
        message = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        return {"failure": message, "trace": traceback.format_exc()}


def open_environment(gym: Gym, render: bool, owner: int) -> OneEpisode:
    """Make one environment of a vector; ``owner`` is the process that asks for it."""
    if os.getpid() != owner:
        # The signals of a terminal reach every process; the owner closes the others.
        ignore_terminal()
    return OneEpisode(gym.make(render=True) if render else gym.make())
