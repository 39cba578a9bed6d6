"""The same policy in the same environment, evaluated by LeRobot's own script and by getiaction."""

from typing import Any

import gymnasium
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from lerobot.envs import make_env, make_env_pre_post_processors
from lerobot.envs.configs import PushtEnv
from lerobot.scripts.lerobot_eval import eval_policy

from getiaction.eval import evaluate_policy
from getiaction.gyms import Gym, PushTGym
from getiaction.policies.lerobot import LeRobotPolicy
from tests.getiaction.eval.policies import small_act
from tests.getiaction.eval.worlds import walk

SEED = 40


def native(env: Any, policy: LeRobotPolicy, episodes: int) -> dict[str, Any]:
    # An environment without a task gives a warning, which LeRobot lets nobody turn off.
    env.envs[0].unwrapped.task = env.envs[0].unwrapped.task_description = ""
    try:
        result: dict[str, Any] = eval_policy(
            env,
            policy.lerobot_policy,
            *make_env_pre_post_processors(PushtEnv(), policy.config),
            policy.preprocessor,
            policy.postprocessor,
            n_episodes=episodes,
            start_seed=SEED,
            return_episode_data=True,
        )
    finally:
        env.close()
    return result


def compare(gym: Gym, policy: LeRobotPolicy, expected: dict[str, Any]) -> None:
    found = evaluate_policy(
        gym,
        policy,
        len(expected["per_episode"]),
        start_seed=SEED,
        num_envs=2,
        return_episode_data=True,
        progress=False,
    )
    for ours, theirs in zip(found["per_episode"], expected["per_episode"], strict=True):
        assert {key: ours[key] for key in theirs} == theirs
    for key in ("avg_sum_reward", "avg_max_reward", "pc_success"):
        assert found["aggregated"][key] == expected["aggregated"][key]
    assert set(expected["aggregated"]) <= set(found["aggregated"])
    assert set(found["episodes"]) == set(expected["episodes"])
    # After the last action LeRobot's data show the next episode already, ours how this one ended.
    index = expected["episodes"]["episode_index"]
    within = torch.cat([index[1:] == index[:-1], torch.tensor([False])])
    for key, value in expected["episodes"].items():
        kept = within if key.startswith("observation.") else slice(None)
        assert torch.equal(found["episodes"][key][kept], value[kept]), key


@pytest.mark.parametrize("obs_type", ["pixels_agent_pos", "environment_state_agent_pos"])
def test_pusht(obs_type: Any) -> None:
    seen: dict[str, tuple[int, ...]] = (
        {"image": (96, 96, 3)} if obs_type == "pixels_agent_pos" else {"environment_state": (16,)}
    )
    policy = small_act(256, 90, state=(2,), action=(2,), **seen)
    gym = PushTGym(obs_type=obs_type, max_episode_steps=20)
    # Makes the package known without the warning of pygame that LeRobot's import would give.
    gym.make().close()
    env = make_env(PushtEnv(obs_type=obs_type, episode_length=20))["pusht"][0]
    expected = native(env, policy, 3)
    # The T lies on its outline in one of them, lest nothing be compared with nothing.
    assert max(row["sum_reward"] for row in expected["per_episode"]) > 0
    compare(gym, policy, expected)


def test_episodes_that_end_by_themselves() -> None:
    gym = walk(noisy=False)
    policy = small_act(0, 1, state=(2,), action=(2,), image=(33, 40, 3))
    # As LeRobot's default environments are made.
    env: Any = SyncVectorEnv(
        [lambda: gymnasium.make("tests/Walk-v0", noisy=False)],
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    expected = native(env, policy, 6)
    assert {row["success"] for row in expected["per_episode"]} == {True, False}
    compare(gym, policy, expected)
