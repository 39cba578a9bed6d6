"""LeRobot's policies as Lightning modules; without LeRobot this imports, and offers nothing."""

import importlib.util
from typing import Any

LEROBOT = "lerobot"
_CLASSES: dict[str, Any] = {}


def is_available() -> bool:
    """Return whether LeRobot is installed."""
    return importlib.util.find_spec(LEROBOT) is not None


if is_available():
    from getiaction.policies.lerobot import named
    from getiaction.policies.lerobot.configs import policy_config
    from getiaction.policies.lerobot.registry import list_available_policies
    from getiaction.policies.lerobot.universal import LeRobotPolicy

    #: The name that the approaches document has for it.
    LeRobotPolicyAdapter = LeRobotPolicy
    _CLASSES = named.policy_classes()
    globals().update(_CLASSES)
else:

    def list_available_policies() -> list[str]:
        """Return no names: LeRobot is not installed."""
        return []


def __getattr__(name: str) -> Any:
    """Look for the class of a plugin's policy, or say what is missing."""
    if name.startswith("_"):
        raise AttributeError(name)
    if not is_available():
        raise ImportError(f"{__name__}.{name} needs LeRobot: pip install 'lerobot[training]'")
    # Plugins register when they are looked for, which no import should wait for.
    list_available_policies()
    for found, made in named.policy_classes().items():
        if found not in _CLASSES:
            _CLASSES[found] = globals()[found] = made
    if name not in _CLASSES:
        raise AttributeError(
            f"module {__name__!r} has no {name!r}; its policies: {', '.join(sorted(_CLASSES))}"
        )
    return _CLASSES[name]


__all__ = [
    "LeRobotPolicy",
    "LeRobotPolicyAdapter",
    "is_available",
    "list_available_policies",
    "policy_config",
    *_CLASSES,
]
