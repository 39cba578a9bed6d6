"""Rewrite ``LeRobotPolicy`` in a configuration to the policy's own class, which checks its fields.

``LeRobotPolicy`` takes a policy's name and the fields of that policy, which a parser cannot know.
The policy's own class declares them, so a configuration is rewritten to that class when it is read.
"""

import re
from collections.abc import Mapping
from typing import Any

from jsonargparse import get_loader, set_loader

from foundation.errors import UsageError
from getiaction.cli.classes import full_path, require_class
from getiaction.policies.lerobot.named import PACKAGE, class_name
from getiaction.policies.lerobot.registry import config_class

MODE = "getiaction"
UNIVERSAL = ("LeRobotPolicy", "LeRobotPolicyAdapter")
NESTED = "config_kwargs"
_NESTED_FLAG = re.compile(rf"^(--model\.(?:init_args\.)?){NESTED}\.")


def use_loader() -> str:
    """Register the loader of configurations; return its name, to be used as parser mode."""
    read = get_loader("yaml")

    def load(text: str) -> Any:
        return in_named_classes(read(text))

    set_loader(MODE, load)
    return MODE


def flat_flags(argv: list[str]) -> list[str]:
    """Rewrite ``--model.init_args.config_kwargs.x`` to ``--model.init_args.x``, as in files."""
    return [_NESTED_FLAG.sub(r"\1", word) for word in argv]


def make_named(argv: list[str]) -> None:
    """Create the policy classes that flags name, so that the parser knows them."""
    for word in argv:
        full_path(word.rpartition("=")[2])


def in_named_classes(content: Any) -> Any:
    """Replace every ``LeRobotPolicy`` within ``content`` by its policy's own class.

    Raises:
        UsageError: the class is unknown, ``policy_name`` is missing, or a field is given twice.
        GetiactionError: the policy is unknown.
    """
    if isinstance(content, list):
        return [in_named_classes(member) for member in content]
    if not isinstance(content, Mapping):
        return content
    content = {name: in_named_classes(value) for name, value in content.items()}
    path = content.get("class_path")
    if not isinstance(path, str):
        return content
    content["class_path"] = path = full_path(path)
    require_class(path)
    arguments = content.get("init_args")
    if not isinstance(arguments, Mapping):
        return content
    arguments = _flat(arguments)
    if path.rpartition(".")[2] in UNIVERSAL:
        if "policy_name" not in arguments:
            raise UsageError(f"{path} needs a policy_name among its init_args, e.g. act")
        policy = config_class(arguments.pop("policy_name"))
        content["class_path"] = f"{PACKAGE}.{class_name(policy)}"
    return content | {"init_args": arguments}


def _flat(arguments: Mapping[str, Any]) -> dict[str, Any]:
    nested = arguments.get(NESTED)
    if not isinstance(nested, Mapping):
        return dict(arguments)
    twice = [name for name in nested if name in arguments]
    if twice:
        raise UsageError(f"given twice, also in {NESTED}: {', '.join(twice)}")
    return {name: value for name, value in arguments.items() if name != NESTED} | dict(nested)
