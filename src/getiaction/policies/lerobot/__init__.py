"""LeRobot's policies as Lightning modules; without LeRobot this imports, but exports none."""

import importlib.util
from importlib import import_module
from typing import Any

LEROBOT = "lerobot"
_HOMES = {
    "LeRobotPolicy": "universal",
    "LeRobotPolicyAdapter": "universal",
    "list_available_policies": "registry",
    "policy_config": "configs",
}


def is_available() -> bool:
    """Return whether LeRobot is installed."""
    return importlib.util.find_spec(LEROBOT) is not None


def _no_policies() -> list[str]:
    """Return no names: LeRobot is not installed."""
    return []


def __getattr__(name: str) -> Any:
    """Load an exported name from its module, and create a policy's class on first use."""
    available = is_available()
    if name == "__all__":
        return ["is_available", *_HOMES, *(_named().class_names() if available else ())]
    # Other names are submodules that are not imported yet.
    if name not in _HOMES and not name[0].isupper():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "list_available_policies" and not available:
        return _no_policies
    if not available:
        raise ImportError(f"{__name__}.{name} needs LeRobot: pip install 'lerobot[training]'")
    if name in _HOMES:
        found: Any = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    else:
        found = _named().policy_class(name)
    if found is None:
        offered = ", ".join(sorted(_named().class_names()))
        raise AttributeError(f"module {__name__!r} has no {name!r}; its policies: {offered}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})


def _named() -> Any:
    return import_module(f"{__name__}.named")
