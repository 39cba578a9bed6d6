"""Environment of one's own, and policies rolled out in it: a hand that is to reach a target.

``python examples/own_environment.py`` plays 20 episodes. Elsewhere the environment is known by its
name ``own_environment:Reach-v0``, while a policy trains as well (with ``PYTHONPATH=examples``)::

    data:
      class_path: getiaction.data.LeRobotDataModule
      init_args: {root: DATASET, val_gyms: "own_environment:Reach-v0"}
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict
from numpy.typing import NDArray

from getiaction.eval import evaluate_policy
from getiaction.gyms import GymnasiumGym

Observation = dict[str, Any]
STEP, NEAR = 0.1, 0.05


class Reach(gymnasium.Env[Observation, NDArray[Any]]):
    """A point in a square that moves by up to 0.1 a step."""

    metadata: dict[str, Any] = {"render_modes": [], "render_fps": 10}  # noqa: RUF012 - declared so by gymnasium

    def __init__(self) -> None:
        # Two of the names that LeRobot knows: a policy sees them as `observation.state` and
        # `observation.environment_state`. Others are named by GymnasiumGym(observation_keys={...}).
        place = Box(-1, 1, (2,), np.float32)
        self.observation_space = Dict({"agent_pos": place, "environment_state": place})
        self.action_space = Box(-STEP, STEP, (2,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; the seed alone decides where the target is."""
        super().reset(seed=seed)
        self.hand: NDArray[np.float32] = np.zeros(2, np.float32)
        self.target = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self._observe(), {}

    def step(self, action: NDArray[Any]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Move the hand; the episode ends when it is near the target."""
        self.hand = np.clip(self.hand + np.clip(action, -STEP, STEP), -1, 1).astype(np.float32)
        is_near = bool(np.linalg.norm(self.target - self.hand) < NEAR)
        # What is counted as success; without it success is "not measured".
        return self._observe(), float(is_near), is_near, False, {"is_success": is_near}

    def _observe(self) -> Observation:
        return {"agent_pos": self.hand.copy(), "environment_state": self.target.copy()}


gymnasium.register("Reach-v0", entry_point=f"{__name__}:Reach", max_episode_steps=40)


class StraightOn:
    """What can be rolled out: ``getiaction``'s policies, or any object with these two methods."""

    def reset(self) -> None:
        """An episode begins; there is nothing to forget."""

    def select_action(self, observation: Observation) -> Any:
        """Answer tensors with a batch dimension by the same."""
        return observation["observation.environment_state"] - observation["observation.state"]


def main() -> None:
    """Play 20 episodes, four at a time."""
    gym = GymnasiumGym("Reach-v0")
    results = evaluate_policy(gym, StraightOn(), n_episodes=20, start_seed=0, num_envs=4)
    found = results["aggregated"]
    print(f"{found['pc_success']:.0f} % of {found['n_episodes']} episodes succeeded")


if __name__ == "__main__":
    main()
