"""The scripted expert solves both tasks, as a function of what it sees."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from positronic import simulator
from positronic.errors import SimulationError
from positronic.geom import quat_conj, quat_from_yaw, quat_mul, yaw
from positronic.simulator.arm import HOME_QUAT
from positronic.simulator.expert import GOALS, make_expert

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
@pytest.mark.parametrize("name", simulator.ENVIRONMENTS)
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


@pytest.mark.parametrize("side", range(6))
def test_picks_up_a_cube_on_whichever_side_it_lies(side: int) -> None:
    """One that fell over has an x axis that is upright, and points nowhere."""
    half = np.sqrt(0.5)
    sides = [(1, 0, 0, 0), (0, 1, 0, 0), (half, half, 0, 0), (half, -half, 0, 0)]
    sides += [(half, 0, half, 0), (half, 0, -half, 0)]
    env: Any = simulator.make("stack_cubes", cameras=None)
    expert = make_expert(env)
    env.reset(seed=side)
    inner = env.unwrapped
    place = inner._object_qpos[0]
    lies = quat_mul(quat_from_yaw(0.5), np.array(sides[side], dtype=np.float64))
    inner.data.qpos[place + 3 : place + 7] = lies
    observation, info = inner.set_sim_state(inner.sim_state()), {}
    for _ in range(90):
        observation, _, terminated, _, info = env.step(expert.act(observation))
        if terminated:
            break
    assert info["is_success"]


def test_a_cube_at_the_border_of_two_headings_is_not_turned_to_and_fro() -> None:
    env: Any = simulator.make("stack_cubes", cameras=None)
    expert = make_expert(env)
    observation, _ = env.reset(seed=0)
    turned = [0.0]
    for step in range(20):
        # Its own heading trembles about 45 degrees, as it does when the fingers touch it.
        poses = observation["object_poses"].reshape(-1, 7).copy()
        tremble = np.deg2rad(46 if step % 2 else 44)
        poses[0, 3:] = quat_from_yaw(tremble)
        action = expert.act({**observation, "object_poses": poses.reshape(-1)})
        turned.append(float(yaw(quat_mul(action[3:7], quat_conj(HOME_QUAT)))))
        observation, *_ = env.step(action)
    assert (np.diff(turned) > -np.deg2rad(3)).all()
    assert turned[-1] == pytest.approx(np.deg2rad(45), abs=np.deg2rad(4))


def test_wants_a_cartesian_environment() -> None:
    env = simulator.make("stack_cubes", cameras=None, control_mode="joint_pos")
    with pytest.raises(SimulationError, match="cartesian_pos"):
        make_expert(env)


def test_a_task_without_a_goal_has_no_expert(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first object was put on the second as if that were the tray."""
    monkeypatch.delitem(GOALS, "pick_place")
    env = simulator.make("pick_place", cameras=None)
    with pytest.raises(SimulationError, match="expert of the task 'pick_place', only of stack_cu"):
        make_expert(env)
