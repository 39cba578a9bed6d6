"""A small environment: quick, seeded, and unkind to whoever counts wrongly.

Without torch, which environments' processes would take seconds to import.
"""

import random
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from getiaction.gyms import GymnasiumGym

LIMIT = 12


class Walk(gymnasium.Env[dict[str, Any], np.ndarray[Any, Any]]):
    """A point that actions push; the episode ends after 3 to 9 steps, with the seed's success.

    Whoever steps on after the end is found out. It draws from the global random streams, as some
    environments do.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 7}  # noqa: RUF012

    def __init__(
        self,
        render_mode: str | None = None,
        fails_at: int | None = None,
        fails_with: int | None = None,
        sleeps_at: int | None = None,
        endless: bool = False,
        log: str | None = None,
        noisy: bool = True,
        tells: str | None = "is_success",
    ) -> None:
        random.random()
        self.render_mode = render_mode
        self._fails = (fails_with, fails_at)
        self._sleeps_at = sleeps_at
        self._endless = endless
        self._noisy = noisy
        self._tells = tells
        self._log = None if log is None else Path(log)
        infinite = np.full(2, np.inf, np.float32)
        self.action_space = gymnasium.spaces.Box(-infinite, infinite)
        self.observation_space = gymnasium.spaces.Dict(
            {
                "agent_pos": gymnasium.spaces.Box(-infinite, infinite),
                "pixels": gymnasium.spaces.Box(0, 255, (33, 40, 3), np.uint8),
            }
        )

    def _seen(self) -> dict[str, Any]:
        noise = random.random() + np.random.rand() if self._noisy else 0.0
        position = self.position + np.float32(noise)
        return {"agent_pos": position, "pixels": self._picture()}

    def _picture(self) -> Any:
        return np.full((33, 40, 3), 20 * self.steps % 256, np.uint8)

    def _may_fail(self) -> None:
        if self._fails == (self.seed, self.steps):
            raise ValueError(f"the {self.steps}th step is too steep: 100 %\nand so on")

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self.seed, self.steps = seed, 0
        self._may_fail()
        self.position = self.np_random.normal(size=2).astype(np.float32)
        self.length = LIMIT * 9 if self._endless else int(self.np_random.integers(3, 10))
        self.succeeds = bool(self.np_random.random() < 0.5)
        return self._seen(), {}

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self.steps += 1
        self._may_fail()
        if self.steps == self._sleeps_at:
            time.sleep(60)
        if self.steps > self.length:
            raise RuntimeError("stepped after its end")
        self.position = self.position + np.asarray(action, np.float32)
        over = self.steps == self.length
        reward = -1.0 - float(np.abs(self.position).sum())
        told = {} if self._tells is None else {self._tells: over and self.succeeds}
        return self._seen(), reward, over, False, told

    def render(self) -> Any:
        return self._picture()

    def close(self) -> None:
        if self._log is not None:
            with self._log.open("a") as file:
                file.write("closed\n")


gymnasium.register("tests/Walk-v0", entry_point=f"{__name__}:Walk", max_episode_steps=LIMIT)


def walk(**options: Any) -> GymnasiumGym:
    # By its module, so that processes that know nothing of the tests find it.
    return GymnasiumGym(f"{__name__}:tests/Walk-v0", **options)
