"""The scripted expert solves both tasks, as a function of what it sees."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from positronic import simulator
from positronic.errors import SimulationError
from positronic.simulator.arm import HOME_QUAT
from positronic.simulator.expert import make_expert

SEEDS = range(12)


def play(env: Any, seed: int) -> tuple[bool, int, list[NDArray[np.float64]], list[dict[str, Any]]]:
    expert = make_expert(env)
    observation, info = env.reset(seed=seed)
    actions: list[NDArray[np.float64]] = []
    seen: list[dict[str, Any]] = []
    for _ in range(150):
        seen.append(observation)
        actions.append(expert.act(observation))
        observation, reward, terminated, _, info = env.step(actions[-1])
        assert reward == float(info["is_success"])
        if terminated:
            break
    return bool(info["is_success"]), len(actions), actions, seen


@pytest.mark.parametrize("noise", [0.0, 0.003])
@pytest.mark.parametrize("name", ["stack_cubes", "pick_place"])
def test_succeeds_in_few_steps(name: str, noise: float) -> None:
    env = simulator.make(name, cameras=None, command_noise=noise)
    results = [play(env, seed)[:2] for seed in SEEDS]
    assert [success for success, _ in results] == [True] * len(SEEDS)
    assert np.mean([steps for _, steps in results]) < 80


def test_commands_are_smooth_small_steps_without_sign_flips() -> None:
    env = simulator.make("stack_cubes", cameras=None)
    for seed in SEEDS:
        _, _, actions, seen = play(env, seed)
        poses = np.array(actions)
        assert (poses[:, 3:7] @ HOME_QUAT > 0.5).all()
        ahead = poses[:, :3] - [observation["robot_state.ee_pose"][:3] for observation in seen]
        assert np.linalg.norm(ahead, axis=1).max() < 0.06
        assert np.linalg.norm(np.diff(poses[:, :3], axis=0), axis=1).max() < 0.06


def test_keeps_nothing_between_calls() -> None:
    env = simulator.make("pick_place", cameras=None)
    _, _, actions, seen = play(env, 0)
    fresh = make_expert(env)
    order = np.random.default_rng(0).permutation(len(seen))
    for i in order:
        np.testing.assert_array_equal(fresh.act(seen[i]), actions[i])


def test_tries_again_after_the_cube_was_knocked_out_of_its_hand() -> None:
    env: Any = simulator.make("stack_cubes", cameras=None)
    expert = make_expert(env)
    observation, info = env.reset(seed=2)
    dropped = False
    for _ in range(200):
        action = expert.act(observation)
        cube = observation["object_poses"][:3]
        if cube[2] > 0.09 and not dropped:
            dropped = True
            for _ in range(6):
                open_hand = np.append(observation["robot_state.ee_pose"], 1.0)
                observation, *_, info = env.step(open_hand)
            continue
        observation, _, terminated, _, info = env.step(action)
        if terminated:
            break
    assert dropped
    assert info["is_success"]


def test_wants_a_cartesian_environment() -> None:
    env = simulator.make("stack_cubes", cameras=None, control_mode="joint_pos")
    with pytest.raises(SimulationError, match="cartesian_pos"):
        make_expert(env)
