"""Read numeric signals from a row or from columns, with errors that name the signal."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.text import printable
from positronic.codec.fields import listed
from positronic.errors import CodecError
from positronic.geom import quat_dot

# Allows rounding to two decimals; rejects angles and scaled rotations.
UNIT_NORM_TOLERANCE = 0.02


def read(source: Mapping[str, Any], name: str, size: int, *, rows: bool) -> NDArray[np.float64]:
    """The signal ``name`` as float64: ``(size,)`` of one row, ``(T, size)`` of columns.

    A signal of size 1 may be a scalar, or ``(1,)``, in a row.

    Raises:
        CodecError: it is missing, has another shape, is not numeric (text and bool are rejected),
            or is not finite as float32.
    """
    if name not in source:
        raise CodecError(f"signal '{name}' is missing; present: {listed(source)}")
    expected = f"{size} numbers" if size > 1 else "one number"
    value = _array(name, source[name], size, expected, rows=rows)
    if value.dtype.kind not in "fiu":
        given = source[name]
        got = value.dtype if isinstance(given, np.ndarray) else type(given).__name__
        raise CodecError(
            f"signal '{name}' is not numeric: got {printable(got, 60)}, expected {expected}"
        )
    value = value.astype(np.float64, copy=False)
    lead = 1 if rows else 0
    if value.ndim == lead and size == 1:
        value = value[..., np.newaxis]
    if value.ndim != lead + 1 or value.shape[-1] != size:
        raise CodecError(
            f"signal '{name}' has shape {value.shape[lead:]}, expected {expected} per observation"
        )
    with np.errstate(over="ignore"):
        finite = np.isfinite(value.astype(np.float32)).all()
    if not finite:
        beyond = " as float32" if np.isfinite(value).all() else ""
        raise CodecError(
            f"signal '{name}' holds a value that is not finite{beyond}, expected {expected}"
        )
    return value


def require_rotations(name: str, poses: NDArray[np.float64]) -> None:
    """Check that poses ``[x y z qw qx qy qz]``, ``(..., 7 n)``, have unit quaternions.

    Raises:
        CodecError: a norm is off by more than `UNIT_NORM_TOLERANCE`.
    """
    if poses.ndim == 1 and all(map(_is_unit, _quaternions(poses.tolist()))):
        return  # fast path, as it runs at every observation
    for start in range(3, poses.shape[-1], 7):
        quats = poses[..., start : start + 4].reshape(-1, 4)
        norms = np.sqrt(quat_dot(quats, quats))
        wrong = np.abs(norms - 1.0) > UNIT_NORM_TOLERANCE
        if wrong.any():
            row = int(np.argmax(wrong))
            where = f" of row {row}" if poses.ndim > 1 else ""
            raise CodecError(
                f"signal '{name}' holds no rotation at elements {start} to {start + 3}{where}:"
                f" their norm is {norms[row]:.3g}, expected a unit quaternion, wxyz"
            )


def _quaternions(values: list[float]) -> Iterator[list[float]]:
    return (values[start : start + 4] for start in range(3, len(values), 7))


def _is_unit(quat: list[float]) -> bool:
    # The same operations as for many rows, for the same bits.
    w, x, y, z = quat
    return abs(math.sqrt(w * w + x * x + y * y + z * z) - 1.0) <= UNIT_NORM_TOLERANCE


def _array(name: str, value: Any, size: int, expected: str, *, rows: bool) -> NDArray[Any]:
    """The value as an array; a row of Python objects from a client is checked first.

    Otherwise NumPy would convert millions of nested objects, or copy a long text, only for the
    result to be rejected.
    """
    if isinstance(value, str | bytes | bytearray):
        return np.empty(0, object)
    if not rows and isinstance(value, list | tuple):
        if any(isinstance(item, list | tuple) for item in value[: size + 1]):
            raise CodecError(
                f"signal '{name}' is not numeric: got nested sequences, expected {expected}"
            )
        if len(value) != size:
            raise CodecError(
                f"signal '{name}' has shape ({len(value)},), expected {expected} per observation"
            )
    try:
        return np.asarray(value)
    except (TypeError, ValueError, OverflowError) as error:  # lists of unequal length
        raise CodecError(
            f"signal '{name}' is not numeric: got nested sequences, expected {expected}"
        ) from error
