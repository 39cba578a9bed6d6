"""PushT, the environment of the dataset ``lerobot/pusht``."""

import os
import sys
from collections.abc import Mapping
from typing import Any, Literal

import gymnasium

from getiaction.gyms.registered import GymnasiumGym


class PushTGym(GymnasiumGym):
    """Push the T onto its outline: 10 fps, 300 steps, reward ``min(coverage / 0.95, 1)``.

    Configured like LeRobot's ``pusht`` environment. ``pixels_agent_pos`` gives
    ``observation.image`` (B, 3, 96, 96) and ``observation.state`` (B, 2) in pixels of 0..512, the
    keys of ``lerobot/pusht``; ``environment_state_agent_pos`` gives
    ``observation.environment_state`` (B, 16) instead of the image. Actions are (2,), 0..512.

    Args:
        gym_id: The registered id.
        obs_type: Type of observations.
        task: Task given to the policy, in words.
        max_episode_steps: Steps after which an episode is truncated.
        observation_width: Width of the observed image in pixels.
        observation_height: Height of the observed image in pixels.
        visualization_width: Width of the rendered image in pixels.
        visualization_height: Height of the rendered image in pixels.
        rename_map: Observation keys to rename; see :class:`Gym`.
        **make_kwargs: Passed to ``gymnasium.make``.
    """

    package = "gyms"
    ignored_warnings = ("pkg_resources is deprecated",)  # by pygame 2.6

    def __init__(
        self,
        gym_id: str = "gym_pusht/PushT-v0",
        obs_type: Literal[
            "pixels_agent_pos", "environment_state_agent_pos", "pixels", "state"
        ] = "pixels_agent_pos",
        *,
        task: str = "",
        max_episode_steps: int | None = 300,
        observation_width: int = 96,
        observation_height: int = 96,
        visualization_width: int = 384,
        visualization_height: int = 384,
        rename_map: Mapping[str, str] | None = None,
        **make_kwargs: Any,
    ) -> None:
        super().__init__(
            gym_id,
            task=task,
            max_episode_steps=max_episode_steps,
            rename_map=rename_map,
            obs_type=obs_type,
            observation_width=observation_width,
            observation_height=observation_height,
            visualization_width=visualization_width,
            visualization_height=visualization_height,
            **({"render_mode": "rgb_array"} | make_kwargs),
        )

    @property
    def fps(self) -> float:
        """Steps per second."""
        return 10.0

    def make(self, *, render: bool = False) -> gymnasium.Env[Any, Any]:
        """Make an environment; see :meth:`Gym.make`."""
        without_display()
        return super().make(render=render)


def without_display() -> None:
    """Set up off-screen rendering of pygame and MuJoCo on Linux without a display."""
    if sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        return
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("MUJOCO_GL", "egl")
