"""Success flag in the ``info`` of a Gymnasium step, under one of several names, or absent.

Fast to import, for environment processes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

#: Keys of ``info`` under which environments report success; the first present one counts.
NAMES = ("is_success", "success", "task_success", "is_task_success")
# Keys under which vector environments and autoreset wrappers store the final info.
_FINAL = ("final_info", "final_observation", "final_obs")


def success_of(info: Mapping[str, Any]) -> bool | None:
    """Return the success reported in ``info`` of a step, or None if not reported.

    A valid value is a bool, 0 or 1, of any numeric, array or tensor type with one element; anything
    else (text, NaN, 0.7) is ignored.
    """
    for name in NAMES:
        found = _as_bool(info.get(name))
        if found is not None:
            return found
    for name in _FINAL:
        for inner in _mappings(info.get(name)):
            found = success_of(inner)
            if found is not None:
                return found
    return None


def _as_bool(value: Any) -> bool | None:
    if value is None or isinstance(value, str | bytes | Mapping):
        return None
    try:
        one = value.item() if hasattr(value, "item") else np.asarray(value).item()
    except (TypeError, ValueError, RuntimeError):  # arbitrary objects in info
        return None
    return bool(one) if isinstance(one, bool | int | float) and one in (0, 1) else None


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    """The dicts of a final info: itself, or the element of a list or array of one."""
    if isinstance(value, Mapping):
        return [value]
    if isinstance(value, list | tuple) or getattr(value, "dtype", None) == np.dtype(object):
        inner = list(np.asarray(value, dtype=object).reshape(-1))
        return [one for one in inner if isinstance(one, Mapping)] if len(inner) == 1 else []
    return []
