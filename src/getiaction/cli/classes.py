"""Resolve class names in a configuration, with suggestions for unknown ones."""

import importlib
from collections.abc import Iterator, Sequence
from typing import Any

from foundation.errors import UsageError
from foundation.text import did_you_mean

# Modules searched first for bare names; Lightning has callbacks with the same names as ours.
MODULES = (
    "getiaction.policies.lerobot",
    "getiaction.data",
    "getiaction.gyms",
    "getiaction.train.callbacks",
)


def full_path(name: str) -> str:
    """The dotted path of one of our classes given by its bare name; other names unchanged."""
    if "." not in name:
        for module_name in MODULES:
            module = importlib.import_module(module_name)
            if name in module.__all__:
                getattr(module, name)  # creates a policy's class on demand
                return f"{module_name}.{name}"
    return name


def require_class(path: str) -> None:
    """Check that a dotted path is an importable class.

    Raises:
        UsageError: it is not; the message suggests the closest class of the module.
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
    """Message for an unknown class ``path``, with the closest of its module or of ``names``."""
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
    """Import the object at ``path``; None if its module does not have it.

    Raises:
        ImportError: the module does not exist or cannot be imported.
    """
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name, None) if module else None


def descendants(base: type[Any]) -> Iterator[type[Any]]:
    """Yield the imported subclasses of ``base``, recursively."""
    for child in base.__subclasses__():
        yield child
        yield from descendants(child)
