"""Success flag in the ``info`` of a Gymnasium step: under one of several names, or not there.

Light to import: this is what environment processes load.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

#: Keys of ``info`` under which environments tell it, the first that is there counts.
NAMES = ("is_success", "success", "task_success", "is_task_success")
# Where vector environments, and wrappers that reset by themselves, put what belonged to the end.
_FINAL = ("final_info", "final_observation", "final_obs")


def told_success(info: Mapping[str, Any]) -> bool | None:
    """Say whether ``info`` of a step tells success: True or False, or None where it tells nothing.

    A value is told by a bool, or by 0 or 1, of any number, array or tensor type with one element;
    anything else (text, NaN, 0.7) is no answer to the question.
    """
    for name in NAMES:
        told = _as_bool(info.get(name))
        if told is not None:
            return told
    for name in _FINAL:
        for inner in _mappings(info.get(name)):
            told = told_success(inner)
            if told is not None:
                return told
    return None


def _as_bool(value: Any) -> bool | None:
    if value is None or isinstance(value, str | bytes | Mapping):
        return None
    try:
        one = value.item() if hasattr(value, "item") else np.asarray(value).item()
    except (TypeError, ValueError, RuntimeError):  # whatever an environment may put there
        return None
    return bool(one) if isinstance(one, bool | int | float) and one in (0, 1) else None


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    """The dictionaries of a final info: itself, or those in an array or list of one."""
    if isinstance(value, Mapping):
        return [value]
    if isinstance(value, list | tuple) or getattr(value, "dtype", None) == np.dtype(object):
        inner = list(np.asarray(value, dtype=object).reshape(-1))
        return [one for one in inner if isinstance(one, Mapping)] if len(inner) == 1 else []
    return []
