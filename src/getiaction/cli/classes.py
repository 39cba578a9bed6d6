"""Resolve class names in a configuration, and suggest the nearest where there is no such class."""

import importlib
from collections.abc import Iterator, Sequence
from typing import Any

from foundation.errors import UsageError
from foundation.text import did_you_mean

# Where bare names are looked for first; Lightning has callbacks of the same names as ours.
PLACES = (
    "getiaction.policies.lerobot",
    "getiaction.data",
    "getiaction.gyms",
    "getiaction.train.callbacks",
)


def full_path(name: str) -> str:
    """The path of a class of ours that is given by its bare name; any other name as it is."""
    if "." not in name:
        for place in PLACES:
            module = importlib.import_module(place)
            if name in module.__all__:
                getattr(module, name)  # a policy's class is made when it is asked for
                return f"{place}.{name}"
    return name


def require_class(path: str) -> None:
    """Refuse a dotted path that leads to nothing.

    Raises:
        UsageError: with the nearest class of that module.
    """
    if "." not in path:
        return
    try:
        found = imported(path)
    except ImportError as error:
        raise UsageError(f"{no_class(path, [])} ({error})") from error
    if found is None:
        raise UsageError(no_class(path, []))


def no_class(path: str, names: Sequence[str]) -> str:
    """Say that ``path`` is no class, and which of its module or of ``names`` is near."""
    module, _, name = path.rpartition(".")
    try:
        inside = importlib.import_module(module) if module else None
    except ImportError:
        inside = None
    offered = getattr(inside, "__all__", None) or [
        found for found, value in vars(inside or object).items() if callable(value)
    ]
    near = did_you_mean(name, offered)
    return f"there is no class {path!r}{near or did_you_mean(name, names)}"


def imported(path: str) -> Any:
    """What ``path`` names; None if its module has no such thing.

    Raises:
        ImportError: there is no such module, or it cannot be imported.
    """
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name, None) if module else None


def descendants(base: type[Any]) -> Iterator[type[Any]]:
    """Yield the classes below ``base`` that have been imported."""
    for child in base.__subclasses__():
        yield child
        yield from descendants(child)
