"""Flags that take a component, such as a policy or a codec: by name, by path, or by ``@``."""

import importlib
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

import configuronic as cfn

from foundation.errors import UsageError
from foundation.text import did_you_mean, printable


@dataclass(frozen=True)
class Component:
    """Kind of component that a parameter takes; stands in its annotation, ``Annotated[T, kind]``.

    Attributes:
        noun: Word for one in messages, such as ``policy``.
        modules: Modules whose ``__all__`` names the configs. A name of another one than the first
            begins with the rest of its module's name, as in ``split.train``.
        fits: Whether an object is such a component.
        other: Returns the config or value for text that is no name, such as a path; None for text
            that it does not understand.
        otherwise: Words for what ``other`` understands.
        example: Short name of the one that help shows first; by default the first.
        bare: Whether a name is taken without its dot.
        none: Name of the config in the first module that stands for no choice.
    """

    noun: str
    modules: tuple[str, ...]
    fits: Callable[[Any], bool]
    other: Callable[[str], Any] = lambda text: None
    otherwise: str = ""
    example: str = ""
    none: str = ""
    bare: bool = True

    def configs(self) -> dict[str, cfn.Config]:
        """Return the configs by short name, without the dot."""
        found: dict[str, cfn.Config] = {}
        for name in self.modules:
            module = importlib.import_module(name)
            prefix = name.removeprefix(self.modules[0]).lstrip(".")
            for short in module.__all__:
                if isinstance(value := getattr(module, short), cfn.Config):
                    found[f"{prefix}.{short}".lstrip(".")] = value
        return found

    def is_none(self, value: Any) -> bool:
        """Return whether a parameter's value says that nothing was chosen."""
        if isinstance(value, cfn.Config) and self.none:
            stands_for_none: cfn.Config = getattr(
                importlib.import_module(self.modules[0]), self.none
            )
            return bool(value.target is stands_for_none.target)
        return value is None or value is inspect.Parameter.empty

    def name_of(self, config: cfn.Config) -> str | None:
        """Return the short name of a config, with its dot."""
        for name, known in self.configs().items():
            if known.target is config.target:
                return f".{name}"
        return None

    def parse(self, flag: str, text: str) -> Any:
        """Return the config that the text of ``flag`` names; text beginning with ``@`` as it is.

        Raises:
            UsageError: There is none; says which there are.
        """
        if text.startswith("@"):
            return text
        name = text.removeprefix(".")
        known = name in self.configs() and (text.startswith(".") or self.bare)
        if known and not (self.otherwise and os.path.exists(text)):
            return self.configs()[name].copy()
        if (found := self.other(text)) is not None:
            return found
        raise UsageError(self._refusal(flag, text))

    def require(self, value: Any, flag: str) -> Any:
        """Return the value of ``flag`` if it is such a component, or a config that may make one.

        Raises:
            UsageError: It is neither; says which there are.
        """
        if isinstance(value, cfn.Config) or self.fits(value):
            return value
        if isinstance(value, str | bool | int | float):
            raise UsageError(self._refusal(flag, str(value)))
        made = type(value).__name__
        raise UsageError(f"--{flag} makes a {made}, not a {self.noun}; give {self.choices()}")

    def with_flag(self, part: str) -> list[str]:
        """Return the short names of those that have a flag ``part``, with their dots."""
        return [
            f".{name}"
            for name, config in self.configs().items()
            if part in inspect.signature(config.target).parameters
        ]

    def choices(self) -> str:
        """Return what there is to choose from, in words."""
        listed = [f".{name}" for name in self.configs()]
        return ", ".join([*listed, *filter(None, [self.otherwise])]) + " or @module.name"

    def _refusal(self, flag: str, given: str) -> str:
        near = did_you_mean(given.removeprefix("."), self.configs()).replace("mean '", "mean '.")
        return f"--{flag}={printable(given, 80)} is not a {self.noun}{near}; give {self.choices()}"


def component_of(config: cfn.Config, name: str) -> Component | None:
    """Return the kind of component that a config's parameter takes, if it takes one."""
    accepted = inspect.signature(config.target).parameters
    named = accepted.get(name) or next(
        (each for each in accepted.values() if each.kind is each.VAR_KEYWORD), None
    )
    annotation = None if named is None else named.annotation
    if get_origin(annotation) is not Annotated:
        return None
    return next((each for each in get_args(annotation) if isinstance(each, Component)), None)
