"""Policy classes, one for each policy of LeRobot, with its config fields in the signature.

The signatures come from LeRobot's config dataclasses: editors complete them, LightningCLI takes
them flat in ``init_args``, and both follow changes of LeRobot. ``__init__.pyi`` holds the same for
type checkers; ``scripts/policy_stubs.py`` writes it.
"""

import dataclasses
import importlib
import inspect
import types
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import lerobot.policies
from lerobot.configs import PreTrainedConfig
from lerobot.optim.optimizers import OptimizerConfig
from lerobot.optim.schedulers import LRSchedulerConfig

from getiaction.policies.lerobot.configs import ALIASES, FIXED, RUNTIME_FIELDS
from getiaction.policies.lerobot.registry import list_available_policies
from getiaction.policies.lerobot.universal import LeRobotPolicy

CONFIG = "Config"
PACKAGE = __name__.rpartition(".")[0]
# For uploads to the hub, which are not done here.
HUB_FIELDS = frozenset({"repo_id", "private", "tags", "license"})
BARE: Mapping[Any, Any] = {tuple: tuple[Any, ...], dict: dict[str, Any], list: list[Any]}
COMMON: Mapping[str, Any] = {
    "input_features": dict[str, Any] | None,
    "output_features": dict[str, Any] | None,
    "config": PreTrainedConfig | None,
    "dataset_stats": dict[str, Any] | None,
    "learning_rate": float | None,
    "config_kwargs": dict[str, Any] | None,
    "stats": dict[str, Any] | None,
    "optimizer": OptimizerConfig | None,
    "scheduler": LRSchedulerConfig | None,
    "total_steps": int | None,
}


def class_name(config_class: type) -> str:
    """Return the name of a policy's class: that of its config, as LeRobot itself derives it."""
    return config_class.__name__.removesuffix(CONFIG)


def class_names() -> list[str]:
    """Return the class names of LeRobot's own policies, and of those registered so far."""
    own = [name.removesuffix(CONFIG) for name in lerobot.policies.__all__ if name.endswith(CONFIG)]
    return list(
        dict.fromkeys([*own, *map(class_name, PreTrainedConfig.get_known_choices().values())])
    )


def policy_class(name: str) -> type[LeRobotPolicy] | None:
    """Return the class of that name; None if no installed policy has it."""
    config = getattr(lerobot.policies, f"{name}{CONFIG}", None)
    if config is None:
        # Loading plugins is slow, so only for unknown names.
        known = map(PreTrainedConfig.get_choice_class, list_available_policies())
        config = next((each for each in known if class_name(each) == name), None)
    return None if config is None else make_class(PreTrainedConfig.get_choice_name(config), config)


def policy_classes() -> dict[str, type[LeRobotPolicy]]:
    """Return the class of every installed policy, by class name."""
    list_available_policies()
    package = importlib.import_module(PACKAGE)
    return {name: getattr(package, name) for name in class_names()}


@cache
def make_class(policy_name: str, config_class: type) -> type[LeRobotPolicy]:
    """Make the class of one policy.

    A value equal to its default counts as not given, because configuration files list all.
    """
    settings = list(parameters(policy_name, config_class))
    defaults = {parameter.name: parameter.default for parameter in settings}

    def __init__(self: LeRobotPolicy, **given: Any) -> None:
        chosen = {k: v for k, v in given.items() if k not in defaults or v != defaults[k]}
        LeRobotPolicy.__init__(self, policy_name, **chosen)

    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    # Read by inspect; functions are not typed to have it.
    __init__.__signature__ = inspect.Signature([own, *settings], return_annotation=None)  # type: ignore[attr-defined]
    __init__.__annotations__ = {p.name: p.annotation for p in settings} | {"return": None}
    name = class_name(config_class)
    __init__.__qualname__ = f"{name}.__init__"
    summary = (inspect.getdoc(config_class) or "").split("\n\n")[0].replace("\n", " ")
    members = {
        "__init__": __init__,
        "__module__": PACKAGE,
        "__qualname__": name,
        "__doc__": (
            f"LeRobot's policy {policy_name!r} under Lightning. {summary}\n\n"
            f"Takes the fields of LeRobot's ``{config_class.__name__}`` as keywords, beside those "
            "of :class:`LeRobotPolicy`."
        ),
        "POLICY_NAME": policy_name,
    }
    made: type[LeRobotPolicy] = types.new_class(
        name, (LeRobotPolicy,), exec_body=lambda namespace: namespace.update(members)
    )
    return made


def parameters(policy_name: str, config_class: type) -> Iterator[inspect.Parameter]:
    """Yield the keywords of a policy's class, with types and defaults."""
    aliases = ALIASES.get(policy_name, {})
    hints = _hints(config_class)
    shared = {**COMMON, **{alias: hints[name] | None for alias, name in aliases.items()}}
    for name, hint in shared.items():
        yield inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)
    for field in dataclasses.fields(config_class):
        if field.name in {*RUNTIME_FIELDS, *HUB_FIELDS, *FIXED, *shared} or not field.init:
            continue
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        # LeRobot has `replace_final_stride_with_dilation: int = False`.
        hint = bool if isinstance(default, bool) and hints[field.name] is int else hints[field.name]
        yield inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if default is dataclasses.MISSING else default,
            annotation=hint,
        )


def _hints(config_class: type) -> dict[str, Any]:
    try:
        hints = typing.get_type_hints(config_class)
    except NameError:
        # A type from a package that is not installed.
        return {field.name: Any for field in dataclasses.fields(config_class)}
    return {name: BARE.get(hint, hint) for name, hint in hints.items()}
