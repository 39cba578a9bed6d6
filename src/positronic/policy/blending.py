"""Action blending: distance between two actions, interpolation, weighted mean."""

from collections.abc import Callable, Mapping, Sequence
from math import asin, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from positronic.geom import align_quat, matrix_to_quat, normalize_quat, quat_to_matrix
from positronic.policy.base import Action
from positronic.policy.player import Jump

Array = NDArray[np.float64]


def jump(old: Action, new: Action) -> Jump:
    """Measure the distance between two actions; 0 in components that they do not share."""
    metres = radians = 0.0
    poses = _vectors([old, new], "pose")
    if poses is not None:
        metres = float(np.linalg.norm(poses[1, :3] - poses[0, :3]))
        # |A - B| of rotation matrices is sqrt(8) sin(angle / 2), well conditioned near zero.
        distance = float(np.linalg.norm(poses[1, 3:] - poses[0, 3:]))
        radians = 2 * asin(min(1.0, distance / sqrt(8)))
    joints = _vectors([old, new], "positions")
    if joints is not None:
        radians = float(np.abs(joints[1] - joints[0]).max(initial=0.0))
    grip = float(new.get("target_grip", 0.0)) - float(old.get("target_grip", 0.0))
    return Jump(metres, radians, abs(grip))


def between(old: Action, new: Action, share: float) -> Action:
    """Return the action at ``share`` of the way, 0 to 1, from ``old`` to ``new``.

    Positions, joints and the grip are interpolated linearly, rotations spherically (shortest arc,
    constant speed). Commands of different or unknown types cannot be interpolated: the new one is
    returned.
    """
    return _combine([old, new], np.array([1 - share, share]), _slerp)


def mean(actions: Sequence[Action], weights: Sequence[float]) -> Action:
    """Return the weighted mean of actions that are due at the same time, oldest first.

    Quaternions are averaged and normalised, as averaging a policy's action vectors would do.
    For commands that cannot be averaged, the newest action is returned.
    """
    shares = np.asarray(weights, dtype=np.float64)
    return _combine(actions, shares / shares.sum(), _weighted_sum)


def _combine(
    actions: Sequence[Action], shares: Array, rotation: Callable[[Array, Array], Array]
) -> Action:
    newest = actions[-1]
    if (poses := _vectors(actions, "pose")) is not None:
        quats = matrix_to_quat(poses[:, 3:].reshape(-1, 3, 3))
        quat = normalize_quat(rotation(align_quat(quats, quats[-1]), shares))
        vector = {"pose": np.append(shares @ poses[:, :3], quat_to_matrix(quat))}
    elif (joints := _vectors(actions, "positions")) is not None:
        vector = {"positions": shares @ joints}
    else:
        return newest
    blended = {**newest, "robot_command": {**newest["robot_command"], **vector}}
    if all("target_grip" in action for action in actions):
        blended["target_grip"] = float(shares @ [float(a["target_grip"]) for a in actions])
    return blended


def _weighted_sum(quats: Array, shares: Array) -> Array:
    return np.asarray(shares @ quats)


def _slerp(quats: Array, shares: Array) -> Array:
    """Spherical interpolation of two unit quaternions in the same hemisphere."""
    angle = np.arctan2(np.linalg.norm(quats[1] - quats[0]), np.linalg.norm(quats[1] + quats[0])) * 2
    if angle < 1e-6:
        return _weighted_sum(quats, shares)
    return _weighted_sum(quats, np.sin(shares * angle) / np.sin(angle))


def _vectors(actions: Sequence[Action], field: str) -> Array | None:
    """Stack ``field`` of all commands; None unless all have the same type and size."""
    commands: list[Any] = [action.get("robot_command") for action in actions]
    if not all(isinstance(c, Mapping) and field in c for c in commands):
        return None
    if len({c.get("type") for c in commands}) > 1:
        return None
    vectors = [np.asarray(c[field], dtype=np.float64) for c in commands]
    size = {"pose": 12}.get(field, vectors[0].size)
    return np.stack(vectors) if all(v.shape == (size,) for v in vectors) else None
