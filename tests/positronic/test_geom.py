"""Poses and rotations against scipy and against their own definitions."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from positronic import geom

RNG = np.random.default_rng(0)
QUATS = geom.normalize_quat(RNG.normal(size=(50, 4)))


def test_quat_and_matrix_are_inverse_and_scalar_first() -> None:
    again = geom.matrix_to_quat(geom.quat_to_matrix(QUATS))
    np.testing.assert_allclose(geom.align_quat(again, QUATS), QUATS, atol=1e-12)
    assert np.all(again[:, 0] >= 0)
    quarter = geom.quat_to_matrix([np.sqrt(0.5), 0, 0, np.sqrt(0.5)])
    np.testing.assert_allclose(quarter @ [1, 0, 0], [0, 1, 0], atol=1e-12)


def test_product_and_inverse() -> None:
    a, b = QUATS[:25], QUATS[25:]
    expected = Rotation.from_quat(a, scalar_first=True) * Rotation.from_quat(b, scalar_first=True)
    product = geom.quat_to_matrix(geom.quat_mul(a, b))
    np.testing.assert_allclose(product, expected.as_matrix(), atol=1e-12)
    unit = geom.quat_mul(a, geom.quat_conj(a))
    np.testing.assert_allclose(unit, np.tile([1.0, 0, 0, 0], (25, 1)), atol=1e-12)


def test_poses_multiply_as_their_matrices_do() -> None:
    def matrices(poses: geom.Array) -> geom.Array:
        found: geom.Array = np.tile(np.eye(4), (len(poses), 1, 1))
        found[:, :3, :3] = Rotation.from_quat(poses[:, 3:], scalar_first=True).as_matrix()
        found[:, :3, 3] = poses[:, :3]
        return found

    poses = np.concatenate([RNG.normal(size=(50, 3)), QUATS], axis=-1)
    a, b = poses[:25], poses[25:]
    wanted = matrices(a) @ matrices(b)
    np.testing.assert_allclose(matrices(geom.pose_mul(a, b)), wanted, atol=1e-12)
    np.testing.assert_allclose(matrices(geom.pose_mul(a, b[0])), matrices(a) @ matrices(b)[0])
    wanted = np.asarray(np.linalg.inv(matrices(a)))
    np.testing.assert_allclose(matrices(geom.pose_inverse(a)), wanted, atol=1e-12)


def test_yaw() -> None:
    angles = np.linspace(-3.1, 3.1, 40)
    np.testing.assert_allclose(geom.yaw(geom.quat_from_yaw(angles)), angles, atol=1e-12)


def test_align_keeps_the_rotation_and_the_hemisphere() -> None:
    reference = np.array([0.0, 1, 0, 0])
    aligned = geom.align_quat(QUATS, reference)
    assert np.all(aligned @ reference >= 0)
    matrices = geom.quat_to_matrix(aligned)
    np.testing.assert_allclose(matrices, geom.quat_to_matrix(QUATS), atol=1e-12)


def test_align_gives_both_quaternions_of_a_rotation_the_same_bits() -> None:
    # Half a turn from the reference, exactly, neither is nearer.
    quats = np.concatenate([QUATS, np.eye(4), [[0.6, 0, 0.8, 0], [0, 0, -0.6, 0.8]]])
    for reference in ([1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, -0.8, 0, 0.6]):
        aligned = geom.align_quat(quats, reference)
        assert aligned.tobytes() == geom.align_quat(-quats, reference).tobytes()
        assert aligned.tobytes() == b"".join(
            geom.align_quat(quat, reference).tobytes() for quat in quats
        )


def test_aligned_quaternions_never_jump() -> None:
    half = np.linspace(0, 3 * np.pi, 100)  # three turns
    quats = geom.quat_from_yaw(2 * half) * RNG.choice([-1.0, 1.0], (100, 1))
    aligned = geom.align_quats(quats, [-1.0, 0, 0, 0])
    np.testing.assert_allclose(aligned[:, 0], -np.cos(half), atol=1e-12)
    assert geom.align_quats(quats[:0], [1.0, 0, 0, 0]).shape == (0, 4)


def test_wire_form_round_trip() -> None:
    poses = np.concatenate([RNG.normal(size=(50, 3)), QUATS], axis=-1)
    wire = geom.pose_to_wire(poses)
    assert wire.shape == (50, 12)
    again = geom.pose_from_wire(wire)
    np.testing.assert_allclose(again[:, :3], poses[:, :3])
    np.testing.assert_allclose(geom.align_quat(again[:, 3:], QUATS), QUATS, atol=1e-12)
    one = geom.pose_to_wire([1, 2, 3, 1, 0, 0, 0])
    np.testing.assert_array_equal(one, [1, 2, 3, 1, 0, 0, 0, 1, 0, 0, 0, 1])


def test_a_quaternion_of_no_length_is_refused() -> None:
    with pytest.raises(ValueError, match="length 0"):
        geom.pose_to_wire(np.zeros(7))
