"""Wire format: msgpack maps with numpy arrays inside.

The encoding of arrays is that of openpi's ``msgpack_numpy``, which every public client speaks:
an array is the map ``{b"__ndarray__": True, b"data": <C-order bytes>, b"dtype": "<f4",
b"shape": [..]}`` and a numpy scalar is ``{b"__npgeneric__": True, b"data": <python scalar>,
b"dtype": "<f4"}``, with keys of the msgpack *bin* type.
"""

import contextlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from foundation.text import printable
from positronic.errors import SessionError
from positronic.offboard import jpeg

_SAME = (str, int, bool, type(None))
MAX_VALUES = 1_000_000
"""Values of all rows together: a constant column takes a few bytes on the wire."""


def fold(rows: Sequence[Any]) -> Any:
    """Encode rows of the same structure as columns; None if they differ in more than numbers."""
    try:
        return _fold(rows) if rows else None
    except _Differ:
        return None


def unfold(columns: Any, count: int) -> list[Any]:
    """Decode columns into ``count`` rows, equal to those given to `fold`.

    Arrays are views of the columns.

    Raises:
        SessionError: They are not columns of ``count`` rows.
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
    """The rows differ in structure."""


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
        # A 0-d array would come back as a scalar.
        if not first.ndim or any((r.shape, r.dtype) != (first.shape, first.dtype) for r in rows):
            raise _Differ
        return ["array", np.stack(rows)]
    if kind not in _SAME or any(row != first for row in rows):
        raise _Differ
    return ["same", first]


def _rows(parts: list[list[Any]], count: int) -> Iterable[tuple[Any, ...]]:
    return zip(*parts, strict=True) if parts else [()] * count


# Kinds of objects, structs and complex numbers: robots send none, and objects would need pickle.
_REFUSED_KINDS = "OVc"
# Plain dtype names; numpy would also parse, and partly evaluate, comma-separated lists.
_DTYPE = re.compile(r"[<>|=]?[biufmMSU][0-9]+(\[[a-z]+\])?", re.ASCII)
# Longer names are invalid, and would take time to match: "<U2147483647" has 12 characters.
_LONGEST_DTYPE = 24
# NumPy has no array of more dimensions; the product of thousands of numbers takes a while.
_MAX_DIMENSIONS = 32
# Python types of a scalar's value, by the kind of its dtype. NumPy itself would take more: a number
# given as bytes_ makes a buffer of so many zeros.
_SCALARS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys("biuf", (bool, int, float)),
    "S": (bytes,),
    "U": (str,),
}

MAX_CONTAINER = 4096
"""Elements of one list, entries of one map. Memory for a list is taken when its length is read,
before its elements are, and lists may be nested: more would let a few bytes ask for gigabytes."""
MAX_ELEMENTS = 20_000
"""Elements of all lists and maps of a message together. An empty list is 1 byte here and 56 in
Python; numbers belong in arrays, which cost nothing."""


def pack(message: Any) -> bytes:
    """Encode nested maps, lists, scalars, strings and numpy arrays.

    Raises:
        SessionError: Something in ``message`` cannot be encoded.
    """
    try:
        return bytes(msgpack.packb(message, default=_encode))
    except (TypeError, ValueError, OverflowError) as error:
        raise SessionError(f"cannot send this message: {error}") from error


def unpack(data: bytes) -> Any:
    """Decode one frame. Arrays are read-only views into ``data``; tuples come back as lists.

    Raises:
        SessionError: ``data`` is not one complete msgpack message of this encoding, or would exceed
            a bound when decoded (see ``MAX_CONTAINER``, ``MAX_ELEMENTS`` and
            `positronic.offboard.jpeg.MAX_PIXELS`).
    """
    decoder = _Decoder()
    try:
        return msgpack.unpackb(
            data,
            object_hook=decoder.map,
            list_hook=decoder.list,
            ext_hook=_no_extension,
            # Text or bytes: other types allow thousands of keys with the same hash.
            strict_map_key=True,
            max_array_len=MAX_CONTAINER,
            max_map_len=MAX_CONTAINER,
            max_ext_len=0,  # for timestamps, which bypass the hook
        )
    except SessionError:
        raise
    except (
        ValueError,
        TypeError,
        OverflowError,
        MemoryError,
        RecursionError,
        msgpack.UnpackException,
    ) as error:
        # The error message may quote the complete frame.
        detail = printable(error) or type(error).__name__
        if "not allowed for map key" in detail:
            detail = f"keys of maps are text or bytes, got {detail.split(' ')[0]}"
        raise SessionError(f"malformed frame, expected a msgpack map: {detail}") from error


def quoted(value: Any) -> str:
    """Return a short description of an untrusted value, in bounded time."""
    if isinstance(value, str | bytes):
        return printable(repr(value[:30]) + ("..." if len(value) > 30 else ""))
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, list) and all(type(item) is int for item in value[:8]):
        return f"[{', '.join(map(str, value[:8]))}{', ...' if len(value) > 8 else ''}]"
    return f"a {type(value).__name__}"


def request_id(data: bytes) -> int | None:
    """Read the id of ``{"request_id": int, "observation": ...}`` without decoding the rest.

    For frames that cannot or should not be decoded. None if there is no such head.
    """
    head = msgpack.Unpacker(strict_map_key=False)
    head.feed(data[:64])
    with contextlib.suppress(ValueError, msgpack.UnpackException):
        if head.read_map_header() == 2 and head.unpack() == "request_id":
            number = head.unpack()
            if type(number) is int and head.unpack() == "observation":
                return number
    return None


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.kind in _REFUSED_KINDS:
            raise TypeError(f"an array of dtype {value.dtype} has no wire form")
        if isinstance(value, np.ndarray):
            return {
                b"__ndarray__": True,
                b"data": value.tobytes(),
                b"dtype": value.dtype.str,
                b"shape": value.shape,
            }
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} has no wire form")


class _Decoder:
    """Decodes maps into arrays, scalars and images, and counts elements."""

    def __init__(self) -> None:
        self._elements = 0
        self._jpeg = jpeg.JpegReader()

    def list(self, value: list[Any]) -> list[Any]:
        self._elements += 1 + len(value)
        if self._elements > MAX_ELEMENTS:
            raise _too_many()
        return value

    def map(self, value: dict[Any, Any]) -> Any:
        self._elements += 1 + len(value)
        if self._elements > MAX_ELEMENTS:
            raise _too_many()
        if b"__ndarray__" in value:
            return _array(value)
        if b"__npgeneric__" in value:
            return _scalar(value)
        if jpeg.MARKER in value:
            return self._jpeg.decode(value)
        return value


def _too_many() -> SessionError:
    return SessionError(
        f"malformed frame: more than {MAX_ELEMENTS} elements in lists and maps;"
        " send numbers as arrays"
    )


def _no_extension(code: int, data: bytes) -> Any:
    raise SessionError(f"malformed frame: a msgpack extension (type {code}), expected none")


def _array(value: dict[Any, Any]) -> NDArray[Any]:
    dtype, shape, data = _dtype(value), value.get(b"shape"), value.get(b"data")
    if (
        not isinstance(shape, list)
        or len(shape) > _MAX_DIMENSIONS
        or [n for n in shape if type(n) is not int or n < 0]
    ):
        raise SessionError(f"malformed array: its shape is {quoted(shape)}")
    expected = math.prod(shape) * dtype.itemsize
    if not isinstance(data, bytes) or len(data) != expected:
        size = len(data) if isinstance(data, bytes) else "no"
        raise SessionError(
            f"malformed array: {size} bytes where {dtype.str} {quoted(shape)} takes {expected}"
        )
    return np.ndarray(shape, dtype=dtype, buffer=data)


def _scalar(value: dict[Any, Any]) -> Any:
    dtype, data = _dtype(value), value.get(b"data")
    if not isinstance(data, _SCALARS.get(dtype.kind, ())):
        raise SessionError(f"malformed scalar: {quoted(data)} is not a valid {dtype.str}")
    with np.errstate(over="ignore"):
        return dtype.type(data)


def _dtype(value: dict[Any, Any]) -> np.dtype[Any]:
    try:
        return _named(value.get(b"dtype"))
    except (TypeError, ValueError, OverflowError) as error:
        name = quoted(value.get(b"dtype"))
        raise SessionError(f"malformed array: its dtype is {name}") from error


@lru_cache(maxsize=64)
def _named(name: Any) -> np.dtype[Any]:
    """Return a dtype by name; cached, since a chunk of 100 actions has 100 arrays of the same."""
    if len(name) > _LONGEST_DTYPE or not _DTYPE.fullmatch(name):
        raise ValueError("no name of a dtype")
    dtype: np.dtype[Any] = np.dtype(name)
    if dtype.kind == "f" and dtype.itemsize > 8:
        raise ValueError("no dtype that is the same on every machine")
    return dtype
