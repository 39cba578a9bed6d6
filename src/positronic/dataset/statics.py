"""Static values of an episode and their JSON: JSON types without null, and bytes.

Bytes are written as ``{"__bytes_b64__": "<base64>"}``, as public Positronic does.
"""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np

BYTES_KEY = "__bytes_b64__"


def checked(value: Any, where: str) -> Any:
    """``value`` as it will read back, or ValueError naming ``where``.

    Allowed are str, int, float, bool, bytes, and lists, tuples and dicts (with str keys) of these.
    NumPy scalars become Python's, tuples become lists. None is refused: leave the key out.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str | int | float | bool | bytes):
        return value
    if isinstance(value, list | tuple):
        return [checked(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise ValueError(f"static {where}: the keys of a dict must be str")
        return {key: checked(item, f"{where}.{key}") for key, item in value.items()}
    kind = "None" if value is None else type(value).__name__
    raise ValueError(
        f"static {where}: {kind} cannot be stored; expected str, int, float, bool, bytes, list or "
        "dict of these (leave out what has no value)"
    )


def _encode(value: Any) -> Any:
    if isinstance(value, bytes):
        return {BYTES_KEY: base64.b64encode(value).decode("ascii")}
    raise TypeError(f"{type(value).__name__} is not JSON")


def _decode(item: dict[str, Any]) -> Any:
    if item.keys() == {BYTES_KEY}:
        return base64.b64decode(item[BYTES_KEY], validate=True)
    return item


def dump(values: dict[str, Any], path: Path) -> None:
    """Write a JSON object."""
    path.write_text(json.dumps(values, indent=2, default=_encode), encoding="utf-8")


def parse(text: str) -> Any:
    """Read JSON with bytes in it; ValueError for what is none."""
    return json.loads(text, object_hook=_decode)


def load(path: Path) -> dict[str, Any]:
    """Read a JSON object; ValueError for anything else."""
    values = parse(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError(f"{path.name} holds a {type(values).__name__}, expected a JSON object")
    return values
