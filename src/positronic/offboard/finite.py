"""Answers that hold numbers only: a robot that takes NaN for a place goes anywhere."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from positronic.errors import SessionError


def require_finite(answer: Any) -> None:
    """Refuse an answer, plain values and arrays nested in any way, with NaN or an infinity in it.

    Raises:
        SessionError: it has one.
    """
    waiting = [answer]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            waiting.extend(part.values())
        elif isinstance(part, list | tuple):
            waiting.extend(part)
        elif isinstance(part, np.ndarray | np.generic):
            finite = part.dtype.kind not in "fc" or bool(np.isfinite(part).all())
            _require(finite)
        elif isinstance(part, float):
            _require(math.isfinite(part))


def _require(finite: bool) -> None:
    if not finite:
        raise SessionError(
            "the server answered with actions that are not finite numbers, and no robot gets them;"
            " ask for another checkpoint"
        )
