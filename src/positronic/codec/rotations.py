"""Representations of rotations in features and actions: quaternions, 6 numbers, 3 numbers.

Recordings and observations hold poses ``[x y z qw qx qy qz]``; a codec may write the rotation as

- ``wxyz``, ``xyzw``: a unit quaternion, its sign chosen by `positronic.codec.vectors`;
- ``rot6d``: the first two columns of the rotation matrix, one after the other. It has no sign and
  no jump, so nothing is aligned;
- ``rotvec``: the rotation vector, axis times angle in radians. Its quaternion is aligned first, so
  the angle may exceed pi, and a gripper that points down (exactly pi) does not jump.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from positronic.codec.fields import shown
from positronic.codec.vectors import Quaternion, aligned, must_negate
from positronic.errors import CodecError
from positronic.geom import (
    pose_to_wire,
    quat_dot,
    quat_to_rotvec,
    rotvec_to_quat,
)

SIZES = {"wxyz": 4, "xyzw": 4, "rot6d": 6, "rotvec": 3}
WORDS = {
    "wxyz": "quaternion wxyz",
    "xyzw": "quaternion xyzw",
    "rot6d": "first two columns of the rotation matrix",
    "rotvec": "rotation vector in radians",
}
WXYZ = "wxyz"
# Metadata of the dataclass field of the representation: specs without it mean wxyz.
ROTATION = {"absent": WXYZ}

_NO_ROTATION = 1e-6


def rotation_of(value: Any) -> str:
    """Return ``value`` if it is the name of a representation.

    Raises:
        CodecError: it is not.
    """
    if not isinstance(value, str) or value not in SIZES:
        raise CodecError(f"rotation is {shown(value)}; give one of {', '.join(SIZES)}")
    return value


def reference_for(rotation: str, reference: Quaternion | None) -> Quaternion | None:
    """Return the reference of signs, which ``rot6d`` does not need."""
    return None if rotation == "rot6d" else reference


def stored_reference(rotation: str, reference: Quaternion) -> tuple[float, ...] | None:
    """Return the reference in the order of the stored quaternion; None if none is stored."""
    w, x, y, z = reference
    return {"wxyz": (w, x, y, z), "xyzw": (x, y, z, w)}.get(rotation)


def encode_poses(
    poses: NDArray[np.float64],
    rotation: str,
    reference: Quaternion | None,
    before: NDArray[Any] | None = None,
) -> NDArray[np.float64]:
    """Encode poses ``(7,)`` of a row or ``(T, 7)`` of many as ``(..., 3 + n)``.

    Args:
        poses: with unit quaternions, wxyz.
        rotation: the representation.
        reference: in whose hemisphere an episode begins; None leaves signs as they are, and gives
            the shortest rotation vector.
        before: the encoded row before a single row, float32; None for the first.
    """
    match rotation:
        case "wxyz":
            return aligned(poses, reference, before)
        case "xyzw":
            last = None if before is None else before[[0, 1, 2, 6, 3, 4, 5]]
            return aligned(poses, reference, last)[..., [0, 1, 2, 4, 5, 6, 3]]
        case "rot6d":
            return np.concatenate([poses[..., :3], _columns(poses[..., 3:])], axis=-1)
        case _:
            vectors = _rotvecs(poses.reshape(-1, 7)[:, 3:], reference, before)
            return np.concatenate([poses[..., :3], vectors.reshape(*poses.shape[:-1], 3)], axis=-1)


def poses_to_wire(vectors: NDArray[np.float64], rotation: str) -> NDArray[np.float64]:
    """Decode encoded poses ``(T, 3 + n)`` to position and row-major matrix ``(T, 12)``.

    Raises:
        CodecError: a row holds no rotation.
    """
    turn = vectors[:, 3:]
    try:
        match rotation:
            case "wxyz":
                return pose_to_wire(vectors)
            case "xyzw":
                return pose_to_wire(vectors[:, [0, 1, 2, 6, 3, 4, 5]])
            case "rotvec":
                return pose_to_wire(np.concatenate([vectors[:, :3], rotvec_to_quat(turn)], axis=-1))
            case _:
                matrix = _matrices(turn).reshape(-1, 9)
                return np.concatenate([vectors[:, :3], matrix], axis=-1)
    except ValueError as error:
        raise CodecError(f"the action holds no rotation: {error}") from error


def _columns(quats: NDArray[np.float64]) -> NDArray[np.float64]:
    """The first two columns of rotation matrices; sums and products only, for the same bits."""
    w, x, y, z = np.moveaxis(quats, -1, 0)
    scale = 2.0 / quat_dot(quats, quats)
    columns = [
        1.0 - scale * (y * y + z * z),
        scale * (x * y + w * z),
        scale * (x * z - w * y),
        scale * (x * y - w * z),
        1.0 - scale * (x * x + z * z),
        scale * (y * z + w * x),
    ]
    return np.stack(columns, axis=-1)


def _matrices(turn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation matrices ``(T, 3, 3)`` of two columns ``(T, 6)``, made orthogonal in their order."""
    first, second = turn[:, :3], turn[:, 3:]
    first = first / _length(first)
    second = second - _dot(first, second) * first
    second = second / _length(second)
    a, b = first[:, [1, 2, 0]] * second[:, [2, 0, 1]], first[:, [2, 0, 1]] * second[:, [1, 2, 0]]
    return np.stack([first, second, a - b], axis=-1)


def _length(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    length = np.sqrt(_dot(vectors, vectors))
    if (length < _NO_ROTATION).any():
        raise ValueError("its two columns are parallel, or have length 0")
    return length


def _dot(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    terms = a * b  # summed in a fixed order, for the same bits
    return (terms[:, 0] + terms[:, 1] + terms[:, 2])[:, np.newaxis]


def _rotvecs(
    quats: NDArray[np.float64], reference: Quaternion | None, before: NDArray[Any] | None
) -> NDArray[np.float64]:
    """Rotation vectors ``(T, 3)``, row by row: the sign of each depends on the one before."""
    if reference is None:
        return quat_to_rotvec(_shortest(quats))
    found = np.empty((len(quats), 3))
    last = None if before is None else before[3:]
    for index, quat in enumerate(quats):  # of any length: an angle does not depend on it
        near = None if last is None else rotvec_to_quat(last).tolist()
        negate = must_negate(quat.tolist(), reference, near)
        found[index] = quat_to_rotvec(0.0 - quat if negate else quat + 0.0)
        last = found[index].astype(np.float32)  # what the row before is known as in a session
    return found


def _shortest(quats: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quaternions with ``w >= 0``; half a turn with its first nonzero component positive."""
    found = np.array(quats)
    for quat in found:
        if must_negate(quat.tolist(), (1.0, 0.0, 0.0, 0.0), None):
            quat *= -1.0
    return found + 0.0
