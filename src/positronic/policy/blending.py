"""How far apart two actions are, and what lies between them."""

from collections.abc import Mapping
from math import asin, sqrt
from typing import Any

import numpy as np

from positronic.policy.base import Action
from positronic.policy.player import Jump


def jump(old: Action, new: Action) -> Jump:
    """Measure from one action to another; 0 where the two have nothing in common to compare."""
    metres = radians = 0.0
    a, b = _pair(old, new, "pose")
    if a is not None and b is not None:
        metres = float(np.linalg.norm(b[:3] - a[:3]))
        # |A - B| of rotation matrices is sqrt(8) sin(angle / 2), well conditioned near zero.
        radians = 2 * asin(min(1.0, float(np.linalg.norm(b[3:] - a[3:])) / sqrt(8)))
    a, b = _pair(old, new, "positions")
    if a is not None and b is not None:
        radians = float(np.abs(b - a).max(initial=0.0))
    grip = float(new.get("target_grip", 0.0)) - float(old.get("target_grip", 0.0))
    return Jump(metres, radians, abs(grip))


def _pair(old: Action, new: Action, field: str) -> tuple[Any, Any]:
    """The vector ``field`` of both commands, or None where they cannot be compared."""
    commands = old.get("robot_command"), new.get("robot_command")
    if not all(isinstance(command, Mapping) and field in command for command in commands):
        return None, None
    a, b = (np.asarray(command[field], dtype=np.float64) for command in commands if command)
    return (a, b) if a.shape == b.shape and a.ndim == 1 else (None, None)
