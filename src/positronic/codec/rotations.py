"""Quaternion sign alignment: one rule for all quaternions that a codec encodes.

A quaternion and its negative are the same rotation but different vectors. A network that is trained
on both learns their mean, which is not a rotation, and is inconsistent at inference. So a codec
chooses the sign itself, whatever a recorder, an importer, a client or a simulator wrote:

* The first row of an episode is put into the hemisphere of a fixed reference, so that all episodes
  start alike. The reference is a field of the codec, and so of the contract.
* Each later row is put into the hemisphere of the previous row, so that the sign does not flip
while
  a robot turns, even past half a turn from the reference. This fails only if a robot turns by more
  than 180 degrees between two rows (of a session: between two requests, one per chunk).

``encode_rows`` has all rows of an episode; ``encode`` gets the previous encoded row, and without it
treats the row as the first. Action targets are aligned within their episode in the same way. The
norm is unchanged, within 2 % of one.

A codec whose reference is None leaves signs unchanged. Contracts written before this rule have no
reference, so their policies run on the signs that they were trained on.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from positronic.codec.fields import shown
from positronic.codec.vectors import UNIT_NORM_TOLERANCE
from positronic.errors import CodecError
from positronic.geom import align_quats

Quaternion = tuple[float, float, float, float]

# The sign is ambiguous half a turn away from the reference, so no robot should start there. This
# one (wxyz) is at least 10 degrees from that at all 24 axis-aligned rotations, in which tools are
# mounted and episodes start; 43 degrees for a gripper that points straight down, turned by any
# multiple of 90 degrees about the vertical, and 126 for the home pose of a Franka arm,
# (0, 1, 0, 0). ``w >= 0`` would be the worst choice: every gripper pointing down is ambiguous.
QUAT_REFERENCE: Quaternion = (0.23, 0.89, 0.37, 0.1)

# Metadata of the dataclass field of the reference: specs without it mean None, no alignment.
LATER = {"absent": None}


def reference_of(value: Any) -> Quaternion | None:
    """Return ``value`` if it is a reference: a unit quaternion, wxyz, or None.

    Raises:
        CodecError: it is neither.
    """
    if value is None:
        return None
    if isinstance(value, Sequence) and len(value) == 4 and all(map(_is_number, value)):
        try:
            w, x, y, z = map(float, value)
        except OverflowError:
            pass
        else:
            if abs(math.hypot(w, x, y, z) - 1) <= UNIT_NORM_TOLERANCE:
                return w, x, y, z
    raise CodecError(f"quat_reference is {shown(value)}; give a unit quaternion [w, x, y, z]")


def aligned(
    poses: NDArray[np.float64],
    reference: Quaternion | None,
    before: NDArray[Any] | None = None,
) -> NDArray[np.float64]:
    """Align the signs in poses ``[x y z qw qx qy qz]``: ``(7,)`` of a row, ``(T, 7)`` of many.

    Args:
        poses: poses with arbitrary signs.
        reference: see the module; None changes nothing.
        before: the encoded row before a single row, float32 ``(7,)``; None for the first.
    """
    if reference is None:
        return poses
    found = poses.copy()
    if poses.ndim > 1:
        found[:, 3:] = align_quats(poses[:, 3:], reference)
    elif _must_negate(poses[3:].tolist(), reference, None if before is None else before[3:]):
        found[3:] = 0.0 - poses[3:]  # avoids negative zeros
    else:
        found[3:] += 0.0
    return found


def _must_negate(quat: list[float], reference: Quaternion, before: NDArray[Any] | None) -> bool:
    """Scalar version of `align_quats` for one row, as it runs at every observation."""
    side = 0.0 if before is None else _dot(quat, before.tolist())
    side = side or _dot(quat, reference) or next(filter(None, quat))
    return side < 0


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
