"""Bytes on the wire: msgpack maps with numpy arrays inside.

The encoding of arrays is that of openpi's ``msgpack_numpy``, which every public client speaks:
an array is the map ``{b"__ndarray__": True, b"data": <C-order bytes>, b"dtype": "<f4",
b"shape": [..]}`` and a numpy scalar is ``{b"__npgeneric__": True, b"data": <python scalar>,
b"dtype": "<f4"}``, with keys of the msgpack *bin* type.
"""

import contextlib
import math
import re
from collections.abc import Mapping
from reprlib import repr  # what it quotes may be long
from typing import Any

import msgpack
import numpy as np

from positronic.errors import SessionError

# Objects, structs and complex numbers: no robot sends them, and the first would need pickle.
_REFUSED_KINDS = "OVc"
# What numpy itself calls a dtype; it would also take, and partly evaluate, a language of lists.
_DTYPE = re.compile(r"[<>|=]?[biufmMSU][0-9]+(\[[a-z]+\])?", re.ASCII)


def pack(message: Any) -> bytes:
    """Encode nested maps, lists, scalars, strings and numpy arrays.

    Raises:
        SessionError: Something in ``message`` cannot go over the wire.
    """
    try:
        return bytes(msgpack.packb(message, default=_encode))
    except (TypeError, ValueError, OverflowError) as error:
        raise SessionError(f"cannot send this message: {error}") from error


def unpack(data: bytes) -> Any:
    """Decode one frame. Arrays are read-only views into ``data``; tuples come back as lists.

    Raises:
        SessionError: ``data`` is not one whole msgpack message of this encoding.
    """
    try:
        return msgpack.unpackb(data, object_hook=_decode, strict_map_key=False)
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
        # The error of a frame may quote all of it.
        detail = (str(error).splitlines() or [type(error).__name__])[0]
        raise SessionError(f"malformed frame, expected a msgpack map: {detail:.200}") from error


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


def _decode(value: dict[Any, Any]) -> Any:
    if b"__ndarray__" in value:
        dtype, shape, data = _dtype(value), value.get(b"shape"), value.get(b"data")
        if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
            raise SessionError(f"malformed array: its shape is {repr(shape)}")
        expected = math.prod(shape) * dtype.itemsize
        if not isinstance(data, bytes) or len(data) != expected:
            size = len(data) if isinstance(data, bytes) else "no"
            raise SessionError(
                f"malformed array: {size} bytes where {dtype.str} {shape} takes {expected}"
            )
        return np.ndarray(shape, dtype=dtype, buffer=data)
    if b"__npgeneric__" in value:
        with np.errstate(over="ignore"):
            return _dtype(value).type(value.get(b"data"))
    return value


def _dtype(value: dict[Any, Any]) -> np.dtype[Any]:
    name = value.get(b"dtype")
    if isinstance(name, str) and _DTYPE.fullmatch(name):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            return np.dtype(name)
    raise SessionError(f"malformed array: its dtype is {repr(name)}")
