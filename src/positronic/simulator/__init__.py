"""MuJoCo scenes as Gymnasium environments, with scripted experts and success scorers.

Importing this package registers ``positronic/StackCubes-v0`` and ``positronic/PickPlace-v0``;
MuJoCo itself is imported when an environment is made.
"""

from positronic.simulator.environments import ENVIRONMENTS, EPISODE_STEPS, env_id, make

__all__ = ["ENVIRONMENTS", "EPISODE_STEPS", "env_id", "make"]
