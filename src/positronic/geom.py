"""Pose and rotation arithmetic: quaternions, rotation matrices, pose vectors.

A quaternion is scalar first, ``[w, x, y, z]``, of unit length; a pose is float64 ``(7,)``:
``[x, y, z, qw, qx, qy, qz]``, position in metres. Functions accept any leading axes. The *wire*
form of a pose, used by the session protocol, is float64 ``(12,)``: position, then the row-major
rotation matrix, which has no sign ambiguity.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Array",
    "align_quat",
    "align_quats",
    "matrix_to_quat",
    "normalize_quat",
    "pose_from_wire",
    "pose_inverse",
    "pose_mul",
    "pose_to_wire",
    "quat_conj",
    "quat_dot",
    "quat_from_yaw",
    "quat_mul",
    "quat_to_matrix",
    "quat_to_rotvec",
    "rotvec_to_quat",
    "yaw",
]

Array = NDArray[np.float64]
"""Array of float64, whatever its shape."""


def normalize_quat(quat: Any) -> Array:
    """Scale to unit length, ``(..., 4)``; ValueError if a length is below 1e-9."""
    q = np.asarray(quat, dtype=np.float64)
    norm = np.linalg.norm(q, axis=-1, keepdims=True)
    if np.any(norm < 1e-9):
        raise ValueError("cannot normalise a quaternion of length 0")
    return np.asarray(q / norm)


def align_quat(quat: Any, reference: Any) -> Array:
    """Return ``q`` or ``-q`` (the same rotation), whichever is in the hemisphere of ``reference``.

    To a network a sign flip between frames is a jump. ``q`` and ``-q`` give the same bits: half a
    turn from the reference, where the dot product is 0, the first nonzero component is made
    positive; negative zeros become positive.
    """
    q = np.asarray(quat, dtype=np.float64)
    dot = quat_dot(q, reference)[..., np.newaxis]
    first = np.take_along_axis(q, np.argmax(q != 0, axis=-1)[..., np.newaxis], axis=-1)
    turn = (dot < 0) | ((dot == 0) & (first < 0))
    return np.where(turn, -q, q) + 0.0


def align_quats(quats: Any, reference: Any) -> Array:
    """Align consecutive quaternions ``(T, 4)``, so that the sign never flips over time.

    The first is aligned with ``reference``, each later one with its predecessor rounded to float32,
    so that a caller which stored only float32 continues with the same bits. One that is half a turn
    from its predecessor is aligned with ``reference`` again.
    """
    q = np.asarray(quats, dtype=np.float64)
    anchors = align_quat(q, reference)
    before = q[:-1].astype(np.float32).astype(np.float64)
    step = np.concatenate([np.zeros(min(len(q), 1)), quat_dot(q[1:], before)])
    turns = np.cumprod(np.where(step < 0, -1.0, 1.0))
    anew = np.maximum.accumulate(np.where(step == 0, np.arange(len(q)), 0))
    signs = np.where(quat_dot(q, anchors) < 0, -1.0, 1.0)
    return np.asarray((turns * turns[anew] * signs[anew])[:, np.newaxis] * q + 0.0)


def quat_dot(a: Any, b: Any) -> Array:
    """Cosine of half the angle between rotations ``(..., 4)``; negative in opposite hemispheres."""
    p, q = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    # Summed in a fixed order: the same bits for one row as for a thousand.
    terms = p * q
    return np.asarray(terms[..., 0] + terms[..., 1] + terms[..., 2] + terms[..., 3])


def quat_to_matrix(quat: Any) -> Array:
    """Rotation matrices ``(..., 3, 3)`` of quaternions ``(..., 4)``."""
    from scipy.spatial.transform import Rotation  # imported late: slow to load

    q = np.asarray(quat, dtype=np.float64)
    flat = Rotation.from_quat(q.reshape(-1, 4), scalar_first=True).as_matrix()
    return np.asarray(flat, dtype=np.float64).reshape(*q.shape[:-1], 3, 3)


def matrix_to_quat(matrix: Any) -> Array:
    """Quaternions ``(..., 4)`` with ``w >= 0`` of rotation matrices ``(..., 3, 3)``."""
    from scipy.spatial.transform import Rotation  # imported late: slow to load

    m = np.asarray(matrix, dtype=np.float64)
    rotation = Rotation.from_matrix(m.reshape(-1, 3, 3))
    flat = np.asarray(rotation.as_quat(canonical=True, scalar_first=True), dtype=np.float64)
    return flat.reshape(*m.shape[:-2], 4)


def quat_to_rotvec(quat: Any) -> Array:
    """Rotation vectors ``(..., 3)`` in radians: axis times angle, of unit quaternions ``(..., 4)``.

    With ``w < 0`` the angle is between pi and two pi, so that a continuous quaternion gives a
    continuous vector.
    """
    q = np.asarray(quat, dtype=np.float64)
    # Scalars of the math module: the same bits for one row as for a thousand.
    flat = [_rotvec(*row) for row in q.reshape(-1, 4).tolist()]
    return np.array(flat, dtype=np.float64).reshape(*q.shape[:-1], 3)


def _rotvec(w: float, x: float, y: float, z: float) -> tuple[float, float, float]:
    sine = math.sqrt(x * x + y * y + z * z)
    scale = 2 * math.atan2(sine, w) / sine if sine > 1e-12 else 2.0
    return scale * x, scale * y, scale * z


def rotvec_to_quat(vector: Any) -> Array:
    """Unit quaternions ``(..., 4)`` of rotation vectors ``(..., 3)``; inverts `quat_to_rotvec`."""
    v = np.asarray(vector, dtype=np.float64)
    flat = [_turn(*row) for row in v.reshape(-1, 3).tolist()]
    return np.array(flat, dtype=np.float64).reshape(*v.shape[:-1], 4)


def _turn(x: float, y: float, z: float) -> tuple[float, float, float, float]:
    angle = math.sqrt(x * x + y * y + z * z)
    scale = math.sin(angle / 2) / angle if angle > 1e-12 else 0.5
    return math.cos(angle / 2), scale * x, scale * y, scale * z


def quat_mul(a: Any, b: Any) -> Array:
    """Hamilton product: the rotation ``b`` followed by ``a``."""
    aw, ax, ay, az = np.moveaxis(np.asarray(a, dtype=np.float64), -1, 0)
    bw, bx, by, bz = np.moveaxis(np.asarray(b, dtype=np.float64), -1, 0)
    product = [
        aw * bw - ax * bx - ay * by - az * bz,
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
    ]
    return np.stack(product, axis=-1)


def quat_conj(quat: Any) -> Array:
    """Inverse rotations of unit quaternions ``(..., 4)``."""
    return np.asarray(np.asarray(quat, dtype=np.float64) * np.array([1.0, -1.0, -1.0, -1.0]))


def pose_mul(a: Any, b: Any) -> Array:
    """Compose poses ``(..., 7)``: ``b``, given in frame ``a``, in the parent frame of ``a``."""
    p, q = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    turn, step = p[..., 3:], np.insert(q[..., :3], 0, 0.0, axis=-1)
    turned = quat_mul(quat_mul(turn, step), quat_conj(turn))[..., 1:]
    return np.concatenate([p[..., :3] + turned, quat_mul(turn, q[..., 3:])], axis=-1)


def pose_inverse(pose: Any) -> Array:
    """Invert a pose ``(..., 7)``: that of ``a`` in ``b``, given that of ``b`` in ``a``."""
    p = np.asarray(pose, dtype=np.float64)
    turn = quat_conj(p[..., 3:])
    back = np.insert(-p[..., :3], 0, 0.0, axis=-1)
    step = quat_mul(quat_mul(turn, back), quat_conj(turn))[..., 1:]
    return np.concatenate([step, turn], axis=-1)


def yaw(quat: Any) -> Array:
    """Heading about the vertical axis in radians, ``(-pi, pi]``: where the body's x axis points."""
    w, x, y, z = np.moveaxis(np.asarray(quat, dtype=np.float64), -1, 0)
    return np.asarray(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)))


def quat_from_yaw(angle: Any) -> Array:
    """Quaternions ``(..., 4)`` of rotations by ``angle`` radians about the vertical axis."""
    half = np.asarray(angle, dtype=np.float64) / 2
    zero = np.zeros_like(half)
    return np.stack([np.cos(half), zero, zero, np.sin(half)], axis=-1)


def pose_to_wire(pose: Any) -> Array:
    """Pose ``(..., 7)`` to position and row-major rotation matrix ``(..., 12)``."""
    p = np.asarray(pose, dtype=np.float64)
    matrix = quat_to_matrix(normalize_quat(p[..., 3:7]))
    return np.concatenate([p[..., :3], matrix.reshape(*p.shape[:-1], 9)], axis=-1)


def pose_from_wire(wire: Any) -> Array:
    """Position and row-major matrix ``(..., 12)`` to pose ``(..., 7)`` with ``qw >= 0``."""
    v = np.asarray(wire, dtype=np.float64)
    quat = matrix_to_quat(v[..., 3:].reshape(*v.shape[:-1], 3, 3))
    return np.concatenate([v[..., :3], quat], axis=-1)
