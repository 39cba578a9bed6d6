"""Quaternion sign alignment: one rule for all that a codec encodes.

A quaternion and its negative are the same rotation and two different vectors. A network that is
trained on both learns their mean, which is no rotation at all, and answers one observation in two
ways. So a codec chooses the sign itself, whatever a recorder, an importer, a client or a simulator
wrote:

* The first row of an episode goes into the hemisphere of a fixed reference, so that all episodes
  begin alike. It is a field of the codec, and so of the contract.
* Each later row goes into the hemisphere of the row before it, so that nothing jumps while a robot
  turns on, past half a turn from the reference too. From one row to the next a robot would have to
  turn by more than 180 degrees to be mistaken, also where a session asks once for a whole chunk.

``encode_rows`` sees all rows of an episode; ``encode`` is told what the row before was encoded as,
and without it takes the row for the first one. Targets follow their own episode in the same way.
The length stays as it is, within 2 % of one.

A codec whose reference is None leaves signs as they come. That is what a contract means which was
written before there was this rule: what it was trained on is what runs.
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

# The sign is least certain half a turn away from the reference, so no robot should begin there.
# This one (wxyz) is at least 10 degrees from that at all 24 rotations whose axes are those of the
# base, which is how tools are mounted and where episodes begin; 43 degrees for a gripper that
# points straight down and is turned by any multiple of 90 degrees about the vertical, and 126 for
# the home pose of a Franka arm, (0, 1, 0, 0). ``w >= 0`` would be the worst choice: it has its
# border at every gripper that points down.
QUAT_REFERENCE: Quaternion = (0.23, 0.89, 0.37, 0.1)

# Of the dataclass field for the reference: there was no rule where a spec lacks it.
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
    """Choose the signs in poses ``[x y z qw qx qy qz]``: ``(7,)`` of a row, ``(T, 7)`` of many.

    Args:
        poses: as they come.
        reference: see the module; None changes nothing.
        before: what the row before a single row was encoded as, float32 ``(7,)``; None if there is
            none.
    """
    if reference is None:
        return poses
    found = poses.copy()
    if poses.ndim > 1:
        found[:, 3:] = align_quats(poses[:, 3:], reference)
    elif _is_to_turn(poses[3:].tolist(), reference, None if before is None else before[3:]):
        found[3:] = 0.0 - poses[3:]  # no zero is negative
    else:
        found[3:] += 0.0
    return found


def _is_to_turn(quat: list[float], reference: Quaternion, before: NDArray[Any] | None) -> bool:
    """What `align_quats` does to one row, in plain numbers: it is asked at every observation."""
    side = 0.0 if before is None else _dot(quat, before.tolist())
    side = side or _dot(quat, reference) or next(filter(None, quat))
    return side < 0


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
