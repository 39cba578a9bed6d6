"""A chunk of actions as columns: a hundred small arrays cost more to pack and unpack than one.

``[{"robot_command": {"type": "cartesian_pos", "pose": (7,)}, "target_grip": 1.0}, ...]`` becomes::

    {"robot_command": {"type": ["same", "cartesian_pos"], "pose": ["array", (T, 7)]},
     "target_grip": ["float", (T,)]}
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from positronic.errors import SessionError

_SAME = (str, int, bool, type(None))
MAX_VALUES = 1_000_000
"""Of all rows together: a column that is the same everywhere takes a few bytes on the wire."""


def fold(rows: Sequence[Any]) -> Any:
    """Turn rows of one form into columns; None where they differ in more than numbers."""
    try:
        return _fold(rows) if rows else None
    except _Differ:
        return None


def unfold(columns: Any, count: int) -> list[Any]:
    """Turn columns back into ``count`` rows, equal to what `fold` was given.

    Arrays are views of the columns.

    Raises:
        SessionError: They are no columns of so many rows.
    """
    if _leaves(columns) * count > MAX_VALUES:
        raise SessionError(f"malformed reply: {count} actions of so many columns are too many")
    return _unfold(columns, count)


def _leaves(columns: Any) -> int:
    found, waiting = 1, [columns]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            found += len(part)
            waiting.extend(part.values())
    return found


def _unfold(columns: Any, count: int) -> list[Any]:
    if isinstance(columns, dict):
        parts = [_unfold(column, count) for column in columns.values()]
        keys = list(columns)
        return [dict(zip(keys, values, strict=True)) for values in _rows(parts, count)]
    match columns:
        case [str() as kind, value] if kind == "same":
            return [value] * count
        case [str() as kind, np.ndarray() as values] if kind == "float":
            if values.shape == (count,):
                return list(values.tolist())
        case [str() as kind, np.ndarray() as values] if kind == "array":
            if values.shape[:1] == (count,):
                return list(values)
    raise SessionError(f"malformed reply: its columns are not of {count} actions")


class _Differ(Exception):
    """The rows have no common form."""


def _fold(rows: Sequence[Any]) -> Any:
    first = rows[0]
    kind = type(first)
    if any(type(row) is not kind for row in rows):
        raise _Differ
    if kind is dict:
        if any(row.keys() != first.keys() for row in rows):
            raise _Differ
        return {key: _fold([row[key] for row in rows]) for key in first}
    if kind is float:
        return ["float", np.array(rows)]
    if kind is np.ndarray:
        # An array without dimensions would come back as a scalar.
        if not first.ndim or any((r.shape, r.dtype) != (first.shape, first.dtype) for r in rows):
            raise _Differ
        return ["array", np.stack(rows)]
    if kind not in _SAME or any(row != first for row in rows):
        raise _Differ
    return ["same", first]


def _rows(parts: list[list[Any]], count: int) -> Iterable[tuple[Any, ...]]:
    return zip(*parts, strict=True) if parts else [()] * count
