"""Gymnasium wrapper that plays one episode and ignores steps after its end.

Fast to import, for environment processes.
"""

import os
import traceback
from typing import Any

import gymnasium
import numpy as np

from foundation.stopping import ignore_terminal
from getiaction.gyms.base import Gym, task_of
from getiaction.gyms.randomness import EpisodeRandomness
from getiaction.gyms.success import success_of

IDLE = None  # the seed of an idle environment


class OneEpisode(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Plays the episode started by ``reset(seed=…)``, and ignores steps after its end.

    A vector environment is stepped until the last episode has ended. Until then a finished
    environment returns its last observation and reward 0, at no cost: its end is reported only in
    ``info``, so that the vector environment does not reset it.

    An environment that uses the global random streams, which it should not, gets streams of its
    episode. An exception is reported in ``info["failure"]``, so that the environment's process can
    still close it.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self._last: Any = None
        self._randomness = EpisodeRandomness(0)
        self._moving = self._moved = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start the episode of ``seed``; idle if it is None."""
        self._moving = self._moved = seed is not IDLE
        # Different from the policy's random numbers, which are seeded with the seed itself.
        own = np.random.SeedSequence([seed or 0, 1]).generate_state(1)
        self._randomness = EpisodeRandomness(int(own[0]))
        try:
            with self._randomness.active():
                self._last, _ = self.env.reset(seed=seed, options=options)
        except Exception as error:  # any environment's error; other episodes continue
            return self.observation_space.sample(), self._failed(error)
        return self._last, {"task": task_of(self.env)}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step, unless the episode has ended; the end and success are in ``info``.

        ``is_success`` is present only if the environment reports success, under any name.
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
        result = {"terminated": bool(terminated), "truncated": bool(truncated)}
        success = success_of(info)
        if success is not None:
            result["is_success"] = success
        return self._last, float(reward), False, False, result

    def render(self) -> Any:
        """Return the rendered image; None after the end of the episode."""
        return self.env.render() if self._moved else None

    def _failed(self, error: Exception) -> dict[str, Any]:
        self._moving = False
        lines = str(error).splitlines()
        message = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        return {"failure": message, "trace": traceback.format_exc()}


def open_environment(gym: Gym, render: bool, owner: int) -> OneEpisode:
    """Create one environment of a vector; ``owner`` is the main process."""
    if os.getpid() != owner:
        # A terminal's signals reach every process; the owner closes the others.
        ignore_terminal()
    return OneEpisode(gym.make(render=True) if render else gym.make())
