"""Validation of a server's replies, before a robot or a terminal gets any of them."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from foundation.text import printable
from positronic.errors import SessionError
from positronic.offboard.wire import MAX_CONTAINER, unfold
from positronic.policy.base import Action

LONGEST = 1000
# Booleans, numbers and text: what a command may consist of.
_KINDS = "biufSU"


def actions(reply: Mapping[Any, Any]) -> list[Action]:
    """Return the actions of a reply that holds no error.

    Raises:
        SessionError: They are none that a robot could follow: not finite, say.
    """
    if "chunk" in reply:
        chunk = reply["chunk"]
        if not isinstance(chunk, Mapping):
            raise SessionError("malformed reply: its chunk is no map")
        _require_finite(chunk.get("columns"))
        found: Any = unfold(chunk.get("columns"), _count(chunk.get("count")))
    elif "result" in reply:
        result = reply["result"]
        found = [] if result is None else result if isinstance(result, list) else [result]
        _require_finite(found)
    else:
        raise SessionError(
            "a reply without result or error, only"
            f" {printable(', '.join(sorted(printable(key, 40) for key in reply)))}"
        )
    for action in found:
        _require_action(action)
    return list(found)


def error(value: Any) -> str:
    """Return what a server says went wrong, fit for a terminal."""
    return printable(value, LONGEST) if isinstance(value, str) else f"a {type(value).__name__}"


def _count(value: Any) -> int:
    if type(value) is not int or not 0 < value <= MAX_CONTAINER:
        raise SessionError(f"malformed reply: a chunk of {printable(repr(value), 40)} actions")
    return value


def _require_action(action: Any) -> None:
    if not isinstance(action, dict):
        raise SessionError(f"malformed reply: an action is a {type(action).__name__}, no map")
    strange = [key for key in action if not isinstance(key, str)]
    if strange:
        raise SessionError("malformed reply: a key of an action is no string")
    for name in ("timestamp", "target_grip"):
        if name in action and not _is_number(action[name]):
            raise SessionError(
                f"malformed reply: the {name} of an action is a {type(action[name]).__name__}"
            )
    command = action.get("robot_command", {})
    if not isinstance(command, dict) or not isinstance(command.get("type", ""), str):
        raise SessionError("malformed reply: the robot_command of an action is no command")


def _is_number(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.size == 1 and value.dtype.kind in "biuf"
    return isinstance(value, int | float | np.number)


def _require_finite(value: Any) -> None:
    """Look at all numbers; what is nested deeper than any action is none."""
    waiting = [(value, 0)]
    while waiting:
        part, depth = waiting.pop()
        if isinstance(part, dict | list):
            if depth > 16:
                raise SessionError("malformed reply: its actions are nested too deeply")
            children = part.values() if isinstance(part, dict) else part
            waiting.extend((child, depth + 1) for child in children)
        elif isinstance(part, np.ndarray | np.generic):
            if part.dtype.kind not in _KINDS:
                raise SessionError(f"malformed reply: an array of dtype {part.dtype}")
            if part.dtype.kind == "f" and not np.isfinite(part).all():
                raise SessionError("the server sent an action that is not finite")
        elif isinstance(part, float) and not math.isfinite(part):
            raise SessionError("the server sent an action that is not finite")
