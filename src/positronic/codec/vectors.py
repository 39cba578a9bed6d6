"""Reading numbers out of a row or out of columns, with errors that name the signal."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from positronic.errors import CodecError

# Rounding to two decimals stays within; angles, or a scaled rotation, do not.
UNIT_NORM_TOLERANCE = 0.02


def read(source: Mapping[str, Any], name: str, size: int, *, rows: bool) -> NDArray[np.float64]:
    """The signal ``name`` as float64: ``(size,)`` of one row, ``(T, size)`` of columns.

    A signal of size 1 may be a scalar, or ``(1,)``, in a row.

    Raises:
        CodecError: it is missing, has another shape, is not numeric (a text or a bool is no
            number), or is not finite.
    """
    if name not in source:
        present = ", ".join(sorted(source)) or "nothing"
        raise CodecError(f"signal '{name}' is missing; present: {present}")
    expected = f"{size} numbers" if size > 1 else "one number"
    try:
        value = np.asarray(source[name])
    except (TypeError, ValueError) as error:  # lists of unequal length
        raise CodecError(
            f"signal '{name}' is not numeric: got nested sequences, expected {expected}"
        ) from error
    if value.dtype.kind not in "fiu":
        got = value.dtype if isinstance(source[name], np.ndarray) else type(source[name]).__name__
        raise CodecError(f"signal '{name}' is not numeric: got {got}, expected {expected}")
    value = value.astype(np.float64, copy=False)
    lead = 1 if rows else 0
    if value.ndim == lead and size == 1:
        value = value[..., np.newaxis]
    if value.ndim != lead + 1 or value.shape[-1] != size:
        raise CodecError(
            f"signal '{name}' has shape {value.shape[lead:]}, expected {expected} per observation"
        )
    if not np.isfinite(value).all():
        raise CodecError(f"signal '{name}' holds a value that is not finite, expected {expected}")
    return value


def require_rotations(name: str, poses: NDArray[np.float64]) -> None:
    """Refuse poses ``[x y z qw qx qy qz]``, ``(7 n,)`` in a row, that hold no unit quaternions.

    Raises:
        CodecError: the norm is off by more than `UNIT_NORM_TOLERANCE`.
    """
    values = poses.tolist()
    for start in range(3, len(values), 7):
        norm = math.hypot(*values[start : start + 4])
        if abs(norm - 1.0) > UNIT_NORM_TOLERANCE:
            raise CodecError(
                f"signal '{name}' holds no rotation at elements {start} to {start + 3}: their norm"
                f" is {norm:.3g}, expected a unit quaternion, wxyz"
            )
