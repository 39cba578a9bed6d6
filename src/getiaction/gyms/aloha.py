"""ALOHA in simulation, the environment of the datasets ``lerobot/aloha_sim_*``."""

import os
from collections.abc import Mapping
from typing import Any, Literal

import gymnasium

from getiaction.errors import GetiactionError
from getiaction.gyms.pusht import without_display
from getiaction.gyms.registered import GymnasiumGym


class AlohaGym(GymnasiumGym):
    """Two arms on a table: 50 fps, 400 steps, reward 0..4, success at 4.

    Configured like LeRobot's ``aloha`` environment: observations are ``observation.images.top``
    (B, 3, 480, 640) and, with ``pixels_agent_pos``, ``observation.state`` (B, 14). Actions are
    (14,).

    Args:
        task_id: ``AlohaInsertion-v0`` or ``AlohaTransferCube-v0``.
        obs_type: Type of observations.
        task: Task given to the policy, in words.
        max_episode_steps: Steps after which an episode is truncated.
        rename_map: Observation keys to rename; see :class:`Gym`.
        **make_kwargs: Passed to ``gymnasium.make``.
    """

    package = "gyms"

    def __init__(
        self,
        task_id: str = "AlohaInsertion-v0",
        obs_type: Literal["pixels_agent_pos", "pixels"] = "pixels_agent_pos",
        *,
        task: str = "",
        max_episode_steps: int | None = 400,
        rename_map: Mapping[str, str] | None = None,
        **make_kwargs: Any,
    ) -> None:
        super().__init__(
            f"gym_aloha/{task_id.removeprefix('gym_aloha/')}",
            task=task,
            max_episode_steps=max_episode_steps,
            # Without the arms' positions, images are not under "pixels".
            observation_keys={"top": "observation.images.top"} if obs_type == "pixels" else None,
            rename_map=rename_map,
            obs_type=obs_type,
            **({"render_mode": "rgb_array"} | make_kwargs),
        )

    @property
    def fps(self) -> float:
        """Steps per second."""
        return 50.0

    def make(self, *, render: bool = False) -> gymnasium.Env[Any, Any]:
        """Make an environment; see :meth:`Gym.make`."""
        without_display()
        # dm_control renders every observation, and fails with an obscure error without OpenGL.
        backend = os.environ.get("MUJOCO_GL", "")
        if backend.lower() in ("disable", "disabled", "off", "0", "false"):
            raise GetiactionError(
                f"{self.gym_id} needs rendering, which MUJOCO_GL={backend} disables: "
                "set MUJOCO_GL=egl"
            )
        return super().make(render=render)
