"""Reading numbers out of a row or out of columns, with errors that name the signal."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from positronic.errors import CodecError


def read(source: Mapping[str, Any], name: str, size: int, *, rows: bool) -> NDArray[np.float64]:
    """The signal ``name`` as float64: ``(size,)`` of one row, ``(T, size)`` of columns.

    A signal of size 1 may be a scalar, or ``(1,)``, in a row.

    Raises:
        CodecError: it is missing, has another shape, is not numeric, or is not finite.
    """
    if name not in source:
        present = ", ".join(sorted(source)) or "nothing"
        raise CodecError(f"signal '{name}' is missing; present: {present}")
    try:
        value = np.asarray(source[name], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CodecError(f"signal '{name}' is not numeric: {error}") from error
    lead = 1 if rows else 0
    if value.ndim == lead and size == 1:
        value = value[..., np.newaxis]
    if value.ndim != lead + 1 or value.shape[-1] != size:
        expected = f"{size} numbers" if size > 1 else "one number"
        raise CodecError(
            f"signal '{name}' has shape {value.shape[lead:]}, expected {expected} per observation"
        )
    if not np.isfinite(value).all():
        raise CodecError(f"signal '{name}' holds a value that is not finite")
    return value
