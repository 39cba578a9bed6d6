"""Numeric signals of a row or of columns: read, validated, and as continuous rotations."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.text import printable
from positronic.codec.fields import listed, shown
from positronic.errors import CodecError
from positronic.geom import align_quats, quat_dot

Quaternion = tuple[float, float, float, float]

# The sign is ambiguous half a turn away from the reference, so no robot should start there. This
# one (wxyz) is at least 10 degrees from that at all 24 axis-aligned rotations, in which tools are
# mounted and episodes start; 43 degrees for a gripper that points straight down, turned by any
# multiple of 90 degrees about the vertical, and 126 for the home pose of a Franka arm,
# (0, 1, 0, 0). ``w >= 0`` would be the worst choice: every gripper pointing down is ambiguous.
QUAT_REFERENCE: Quaternion = (0.23, 0.89, 0.37, 0.1)

# Metadata of the dataclass field of the reference: specs without it mean None, no alignment. It is
# a rule of this version, which a codec that is only named does not impose on older datasets.
LATER = {"absent": None, "rule": True}


# Allows rounding to two decimals; rejects angles and scaled rotations.
UNIT_NORM_TOLERANCE = 0.02


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
    elif must_negate(
        poses[3:].tolist(), reference, None if before is None else before[3:].tolist()
    ):
        found[3:] = 0.0 - poses[3:]  # avoids negative zeros
    else:
        found[3:] += 0.0
    return found


def must_negate(quat: list[float], reference: Quaternion, before: list[float] | None) -> bool:
    """Return whether to negate one row: `align_quats` in scalars, run at each observation."""
    side = 0.0 if before is None else _dot(quat, before)
    side = side or _dot(quat, reference) or next(filter(None, quat))
    return side < 0


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def read(
    source: Mapping[str, Any], name: str, size: int | None, *, rows: bool
) -> NDArray[np.float64]:
    """The signal ``name`` as float64: ``(size,)`` of one row, ``(T, size)`` of columns.

    A signal of size 1 may be a scalar, or ``(1,)``, in a row.

    Raises:
        CodecError: it is missing, has another shape, is not numeric (text and bool are rejected),
            or is not finite as float32; or its size is not known yet.
    """
    if size is None:
        raise CodecError(f"the codec does not know yet how many numbers '{name}' has")
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
