"""Static values of an episode and their JSON form: JSON types without null, and bytes.

Bytes are written as ``{"__bytes_b64__": "<base64>"}``, as public Positronic does.
"""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np

from foundation.documents import Reader

BYTES_KEY = "__bytes_b64__"
# Bytes and robot models make the files large; some recorders wrote NaN for values not measured.
READER = Reader(size=64 << 20, values=1_000_000, allow_nan=True)


def checked(value: Any, where: str) -> Any:
    """``value`` as reading will return it, or ValueError naming ``where``.

    Allowed are str, int, float, bool, bytes, and lists, tuples and dicts (with str keys) of these.
    NumPy scalars become Python's, tuples become lists. None is rejected: leave out the key.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"static {where}: {ascii(value)[:80]} is not Unicode") from None
    if isinstance(value, str | int | float | bool | bytes):
        return value
    if isinstance(value, list | tuple):
        return [checked(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise ValueError(f"static {where}: the keys of a dict must be str")
        return {checked(key, where): checked(item, f"{where}.{key}") for key, item in value.items()}
    kind = "None" if value is None else type(value).__name__
    raise ValueError(
        f"static {where}: {kind} cannot be stored; expected str, int, float, bool, bytes, list or "
        "dict of these (leave out what has no value)"
    )


def encode(value: Any) -> Any:
    """``default`` of ``json.dumps`` for static values."""
    if isinstance(value, bytes):
        return {BYTES_KEY: base64.b64encode(value).decode("ascii")}
    raise TypeError(f"{type(value).__name__} is not JSON")


def dump(values: dict[str, Any], path: Path) -> None:
    """Write a JSON object."""
    path.write_text(json.dumps(values, indent=2, default=encode), encoding="utf-8")


def parse(content: bytes | str, source: str) -> dict[str, Any]:
    """Parse a JSON object, decoding bytes; InvalidDocument for anything else."""
    return _with_bytes(READER.parse_json(content, dict[str, Any], source), source)


def load(path: Path) -> dict[str, Any]:
    """Read a JSON object; InvalidDocument for anything else."""
    return parse(READER.read(path), "the file")


def decoded(value: Any) -> Any:
    """``value`` with base64 text decoded to bytes; ValueError if it is not base64."""
    if isinstance(value, list):
        return [decoded(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() != {BYTES_KEY}:
        return {key: decoded(item) for key, item in value.items()}
    text = value[BYTES_KEY]
    if not isinstance(text, str):
        raise ValueError(f"{BYTES_KEY} is a {type(text).__name__}, expected text in base64")
    return base64.b64decode(text, validate=True)


def _with_bytes(values: dict[str, Any], source: str) -> dict[str, Any]:
    try:
        return {key: decoded(value) for key, value in values.items()}
    except ValueError as error:
        raise READER.refusal(f"{source} holds bytes that are not base64: {error}") from error
