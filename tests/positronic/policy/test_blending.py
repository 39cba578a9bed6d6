from math import pi
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from positronic.geom import matrix_to_quat
from positronic.policy.blending import between, jump, mean


def posed(position: list[float], rotation: Rotation, grip: float = 0.0) -> dict[str, Any]:
    pose = np.concatenate([position, rotation.as_matrix().ravel()])
    command = {"type": "cartesian_pos", "pose": pose}
    return {"robot_command": command, "target_grip": grip, "timestamp": 1.5}


def jointed(values: list[float], grip: float = 0.0) -> dict[str, Any]:
    command = {"type": "joint_pos", "positions": np.array(values, np.float32)}
    return {"robot_command": command, "target_grip": grip}


def random_rotations(seed: int, count: int) -> list[Rotation]:
    rng = np.random.default_rng(seed)
    return [Rotation.random(rng=rng) for _ in range(count)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_between_two_poses_is_a_line_and_scipys_slerp(seed: int, share: float) -> None:
    a, b = random_rotations(seed, 2)
    action = between(posed([0, 0, 0], a, 1.0), posed([1, 2, 4], b, 0.0), share)
    pose = action["robot_command"]["pose"]
    np.testing.assert_allclose(pose[:3], np.array([1, 2, 4]) * share)
    expected = Slerp([0, 1], Rotation.concatenate([a, b]))(share).as_matrix()
    np.testing.assert_allclose(pose[3:].reshape(3, 3), expected, atol=1e-9)
    assert action["target_grip"] == 1 - share
    assert pose.dtype == np.float64
    assert action["timestamp"] == 1.5


def test_between_equal_poses_is_that_pose() -> None:
    (rotation,) = random_rotations(3, 1)
    pose = between(posed([1, 2, 3], rotation), posed([1, 2, 3], rotation), 0.3)
    np.testing.assert_allclose(
        pose["robot_command"]["pose"], posed([1, 2, 3], rotation)["robot_command"]["pose"]
    )


def test_the_mean_of_poses_is_that_of_their_quaternions_in_one_hemisphere() -> None:
    # Around half a turn the canonical quaternions of neighbours point opposite ways.
    turns = [Rotation.from_euler("z", pi + angle) for angle in (-0.2, 0.1, 0.25)]
    weights = [1.0, 0.5, 0.25]
    action = mean([posed([i, 0, 0], turn, i) for i, turn in enumerate(turns)], weights)
    quats = np.array([matrix_to_quat(turn.as_matrix()) for turn in turns])
    quats *= np.sign(quats @ quats[-1])[:, None]
    summed = np.average(quats, axis=0, weights=weights)
    expected = Rotation.from_quat(summed, scalar_first=True).as_matrix()
    pose = action["robot_command"]["pose"]
    np.testing.assert_allclose(pose[3:].reshape(3, 3), expected, atol=1e-9)
    assert pose[0] == pytest.approx(np.average([0, 1, 2], weights=weights))
    assert action["target_grip"] == pytest.approx(np.average([0, 1, 2], weights=weights))


def test_joints_are_blended_linearly() -> None:
    action = between(jointed([0, 2], 0.0), jointed([1, 0], 1.0), 0.25)
    np.testing.assert_allclose(action["robot_command"]["positions"], [0.25, 1.5])
    assert action["target_grip"] == 0.25


@pytest.mark.parametrize(
    "old",
    [
        jointed([0.0, 0.0, 0.0]),
        posed([0, 0, 0], Rotation.identity()),
        {"robot_command": {"type": "joint_delta", "positions": np.zeros(2)}, "target_grip": 0.0},
        {"robot_command": {"type": "reset"}, "target_grip": 0.0},
        {"target_grip": 0.0},
    ],
)
def test_where_nothing_lies_between_the_new_action_is_taken(old: dict[str, Any]) -> None:
    new = jointed([1.0, 2.0], 1.0)
    assert between(old, new, 0.5) is new
    assert mean([old, new], [1, 1]) is new
    assert jump(old, new) == (0, 0, 1)


def test_a_pose_of_the_wrong_size_is_left_to_whoever_gets_it() -> None:
    wrong = {"robot_command": {"type": "cartesian_pos", "pose": np.zeros(7)}, "target_grip": 0.0}
    assert between(wrong, wrong, 0.5) is wrong


@pytest.mark.parametrize("angle", [0.0, 1e-7, 0.3, pi - 1e-6])
def test_a_jump_is_measured_in_metres_radians_and_grip(angle: float) -> None:
    rotation, turn = random_rotations(1, 1)[0], Rotation.from_rotvec([0, angle, 0])
    found = jump(posed([0, 0, 0], rotation, 1.0), posed([0.3, 0, 0.4], rotation * turn, 0.25))
    assert found.metres == pytest.approx(0.5)
    assert found.radians == pytest.approx(angle, rel=1e-3, abs=1e-12)
    assert found.grip == 0.75
    assert jump(jointed([0, 1, 0]), jointed([0.1, 0.5, 0])).radians == pytest.approx(0.5)
