from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from positronic import geom
from positronic.importers.robosuite import (
    NotAbsolute,
    OscPose,
    finger_limits,
    grip_from_action,
    grip_from_fingers,
    wxyz,
)
from tests.positronic.importers.conftest import CONTROLLER, MODEL


def poses(count: int, seed: int = 0) -> geom.Array:
    rng = np.random.default_rng(seed)
    quats = geom.normalize_quat(rng.normal(size=(count, 4)))
    return np.concatenate([rng.normal(size=(count, 3)), quats], axis=1)


def test_quaternions_become_scalar_first_and_keep_their_signs() -> None:
    """A codec chooses the signs, by one rule for all recordings; here that would be a second."""
    turning = Rotation.from_euler("x", np.linspace(150, 400, 60)[:, None], degrees=True)
    xyzw = turning.as_quat()
    xyzw[::3] *= -1
    quats = wxyz(2 * xyzw)
    np.testing.assert_allclose(quats, np.roll(xyzw, 1, axis=1), atol=1e-12)
    np.testing.assert_allclose(wxyz(-xyzw), -quats, atol=1e-12)


def test_grip_is_one_when_open_and_zero_when_closed() -> None:
    fingers = np.array([[0.04, -0.04], [0.02, -0.02], [0.0, 0.0], [0.041, -0.041]])
    assert grip_from_fingers(fingers, (0.0, 0.08)).tolist() == [1.0, 0.5, 0.0, 1.0]


def test_finger_limits_are_read_from_the_model() -> None:
    assert finger_limits(MODEL.replace("0.04", "0.05")) == pytest.approx((0.0, 0.1))
    assert finger_limits(None) == pytest.approx((0.0, 0.08))
    thumb, half = MODEL.replace("finger_joint1", "thumb"), MODEL.replace("0 0.04", "0")
    for other in ("<mujoco/>", thumb, half):
        with pytest.raises(ValueError, match="not have two sliding finger joints"):
            finger_limits(other)
    with pytest.raises(ValueError, match="not finite, or empty"):
        finger_limits(MODEL.replace("0.04", "0.0"))


def test_fingers_that_pass_zero() -> None:
    """Sawyer's, whose ranges robosuite gives as -0.0115 to 0.020833."""
    joint = '<joint name="gripper0_{}_finger_joint" type="slide" range="{}"/>'
    left, right = joint.format("l", "-0.0115 0.020833"), joint.format("r", "-0.020833 0.0115")
    limits = finger_limits(f"<mujoco>{left}{right}</mujoco>")
    fingers = np.array([[0.020833, -0.020833], [0.0046665, -0.0046665], [-0.0115, 0.0115]])
    np.testing.assert_allclose(grip_from_fingers(fingers, limits), [1.0, 0.5, 0.0], atol=1e-9)


def test_gripper_action_counts_by_its_sign_and_zero_holds() -> None:
    action = np.array([0.0, -1.0, 0.0, 0.3, 0.0, -0.2])
    assert grip_from_action(action).tolist() == [1.0, 1.0, 1.0, 0.0, 0.0, 1.0]


def test_increments_are_scaled_and_clipped() -> None:
    osc = OscPose.from_config(CONTROLLER)
    increments = osc.increments([[0.5, -1.0, 3.0, 0.2, 0.0, -1.0, 1.0]])
    assert np.allclose(increments, [[0.025, -0.05, 0.05, 0.1, 0.0, -0.5]])


def test_uneven_ranges_are_mapped_linearly() -> None:
    uneven = CONTROLLER | {"input_min": 0, "output_min": 0.0, "output_max": 0.1}
    osc = OscPose.from_config(uneven)
    assert np.allclose(osc.increments(np.full((1, 7), 0.5)), 0.05)


def test_targets_are_increments_in_the_world_frame() -> None:
    osc = OscPose.from_config(CONTROLLER)
    here, actions = poses(20), np.random.default_rng(1).uniform(-1, 1, (20, 7))
    targets = osc.targets(here, actions)
    assert np.allclose(targets[:, :3], here[:, :3] + 0.05 * actions[:, :3])
    turn = geom.quat_to_matrix(targets[:, 3:]) @ geom.quat_to_matrix(here[:, 3:]).swapaxes(1, 2)
    assert np.allclose(Rotation.from_matrix(turn).as_rotvec(), 0.5 * actions[:, 3:6])
    assert np.all(np.sum(targets[:, 3:] * here[:, 3:], axis=1) > 0)


def test_increment_of_zero_rotation_keeps_the_previous_target_rotation() -> None:
    osc = OscPose.from_config(CONTROLLER)
    actions = np.zeros((3, 7))
    actions[1, 3] = 0.4
    here = poses(3)
    targets = geom.quat_to_matrix(osc.targets(here, actions)[:, 3:])
    assert np.allclose(targets[0], geom.quat_to_matrix(here[0, 3:]))
    assert np.allclose(targets[2], targets[1])


def test_position_limits_hold_targets_back() -> None:
    osc = OscPose.from_config(CONTROLLER | {"position_limits": [[-0.1] * 3, [0.1] * 3]})
    targets = osc.targets(poses(20), np.ones((20, 7)))
    assert np.abs(targets[:, :3]).max() <= 0.1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"type": "JOINT_POSITION"}, "JOINT_POSITION"),
        ({"control_delta": False}, "control_delta"),
        ({"impedance_mode": "variable"}, "impedance_mode"),
        ({"orientation_limits": [[0] * 3, [1] * 3]}, "orientation_limits"),
        ({"output_max": [1, 2]}, "incomplete"),
        ({"input_min": 1}, "input_min"),
    ],
)
def test_controllers_that_say_too_little_are_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(NotAbsolute, match=named):
        OscPose.from_config(CONTROLLER | change)
