"""Parse command-line flags and apply them to the arguments of a config."""

import inspect
import os
import types
import typing
from dataclasses import dataclass
from typing import Any

import configuronic as cfn
from fire.parser import DefaultParseValue

from foundation.errors import UsageError
from foundation.text import did_you_mean, printable
from positronic.cli.components import component_of
from positronic.cli.help import parameters, positional

SIMPLE = (bool, int, float, str)
# As LeRobot's commands and YAML spell them, in any case for true and false.
YAML_WORDS = {"true": True, "false": False, "null": None}


@dataclass(frozen=True)
class Flags:
    """Overrides of one command line, in the order given: dotted name, and text as typed or True."""

    items: tuple[tuple[str, str | bool], ...]

    def given(self, name: str) -> list[str | bool]:
        """Return the values of a flag, in the order given."""
        return [value for given, value in self.items if given == name]

    def without(self, *names: str) -> "Flags":
        """Return the flags without those of these names."""
        return Flags(tuple(item for item in self.items if item[0] not in names))


def parse_flags(words: list[str], config: cfn.Config) -> Flags:
    """Parse ``--a.b=value``, ``--a.b value``, ``--flag`` and positional words.

    Positional words fill the command's required parameters in order.
    """
    items: list[tuple[str, str | bool]] = []
    bare: list[str] = []
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if not word.startswith("--"):
            bare.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        if equals:
            items.append((name, value))
        elif position < len(words) and not words[position].startswith("--"):
            items.append((name, words[position]))
            position += 1
        else:
            items.append((name, True))
    given = {name for name, _ in items}
    open_names = [name for name in positional(config) if name not in given]
    if len(bare) > len(open_names):
        raise UsageError(
            f"{bare[len(open_names)]!r} is not a flag; flags are written --name=value (see --help)"
        )
    return Flags(tuple(zip(open_names, bare, strict=False)) + tuple(items))


def apply_flags(config: cfn.Config, flags: Flags) -> cfn.Config:
    """Override the config by the flags, one by one; a config before its parts.

    Raises:
        UsageError: A flag that does not exist, or a value of the wrong type; suggests the nearest.
    """
    for name, text in sorted(flags.items, key=lambda item: item[0].count(".")):
        owner = _owner(config, name)
        value = parse_value(owner, name, text)
        component = None if owner is None else component_of(owner, name.rsplit(".", 1)[-1])
        key, value = _in_dict(config, name, value)
        try:
            config = config.override(**{key: value})
        except cfn.ConfigError as error:
            raise UsageError(f"--{name}={text}: {_cause(error, value)}") from error
        if component is not None and isinstance(value, str) and value.startswith("@"):
            made = _owner(config, name)
            component.require(None if made is None else made.kwargs[name.rsplit(".", 1)[-1]], name)
    return config


def _owner(config: cfn.Config, name: str) -> cfn.Config | None:
    """Return the config that the flag's last part belongs to; refuse an unknown part."""
    node: Any = config
    parts = name.split(".")
    for depth, part in enumerate(parts):
        if not isinstance(node, cfn.Config):
            if isinstance(node, dict | list):
                return None
            raise UsageError(
                f"--{name}: {'.'.join(parts[:depth])} is a plain value and has no {part!r}"
            )
        accepted = parameters(node)
        open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in accepted.values())
        if part not in accepted and part not in node.kwargs and not open_ended:
            before = "".join(f"{p}." for p in parts[:depth])
            hint = did_you_mean(f"--{before}{part}", [f"--{before}{other}" for other in accepted])
            raise UsageError(f"there is no flag --{name}{hint} (see --help)")
        if depth == len(parts) - 1:
            return node
        declared = accepted[part].default if part in accepted else None
        component = component_of(node, part)
        node = node.kwargs.get(part, declared)
        if component is not None and component.is_none(node):
            able = component.with_flag(parts[depth + 1]) or [f".{n}" for n in component.configs()]
            given = ".".join(parts[: depth + 1])
            raise UsageError(
                f"--{name}: choose {' or '.join(f'--{given}={each}' for each in able)} first"
            )
        if node is None or node is inspect.Parameter.empty:
            raise UsageError(
                f"--{name}: give --{'.'.join(parts[: depth + 1])}=@module.name first, "
                "then its arguments"
            )
    return None


def _in_dict(config: cfn.Config, name: str, value: Any) -> tuple[str, Any]:
    """Return the override that sets an item of a dict: below a dict, the rest is one key.

    Names of static values have dots in them, as in ``--where.eval.success=True``.
    """
    node: Any = config
    parts = name.split(".")
    for depth, part in enumerate(parts):
        if isinstance(node, dict) and not isinstance(node.get(part), cfn.Config | dict | list):
            return ".".join(parts[:depth]), {**node, ".".join(parts[depth:]): value}
        if isinstance(node, cfn.Config):
            node = node.kwargs.get(part)
        elif isinstance(node, dict):
            node = node[part]
        else:
            break
    return name, value


def parse_value(owner: cfn.Config | None, name: str, given: Any) -> Any:
    """Return the value of a flag in the type that its parameter declares.

    Text is parsed as a Python literal, unless the parameter is declared to be a string; truth
    values and None may also be spelled ``true``, ``false`` and ``null``.

    Args:
        owner: The config that the last part of ``name`` belongs to, if there is one.
        name: The flag's dotted name.
        given: Text as typed, or a plain value from a file.

    Raises:
        UsageError: It is of the wrong type.
    """
    last = name.rsplit(".", 1)[-1]
    component = None if owner is None else component_of(owner, last)
    if owner is not None and component is not None:
        is_none = given is None or (isinstance(given, str) and _is_none(given))
        if is_none and _defaults_to_none(owner, last):
            return None
        if isinstance(given, str):
            return component.parse(name, given)
        return component.require(given, name)
    allowed = _declared(owner, last) if owner is not None else None
    if allowed is None and isinstance(given, str) and given.startswith(("./", "../")):
        return os.path.abspath(given)  # otherwise it would mean a config beside the default
    parsed = _parsed(given, allowed) if isinstance(given, str) else given
    if allowed is None or (parsed is None and None in allowed):
        return parsed
    if isinstance(given, str):
        if given.startswith(("@", ".")):
            return parsed
        other = tuple(t for t in allowed if t not in (str, None))
        if str in allowed and not isinstance(parsed, other):
            return given
    if float in allowed and isinstance(parsed, int) and not isinstance(parsed, bool):
        try:
            return parsed if int in allowed else float(parsed)
        except OverflowError:
            raise UsageError(f"--{name}={printable(given, 80)}: too large for a float") from None
    wanted = tuple(t for t in allowed if t is not None)
    is_bool = isinstance(parsed, bool)
    if not isinstance(parsed, wanted) or (is_bool and bool not in wanted):
        words = " or ".join("None" if t is None else t.__name__ for t in allowed)
        raise UsageError(f"--{name}={printable(given, 80)}: expected {words}")
    return parsed


def _is_none(text: str) -> bool:
    return text.lower() in ("none", "null")


def _defaults_to_none(owner: cfn.Config, name: str) -> bool:
    parameter = parameters(owner).get(name)
    return parameter is not None and parameter.default is None


def _parsed(text: str, allowed: tuple[type | None, ...] | None) -> Any:
    """Parse a Python literal, or a YAML word if the parameter accepts its value."""
    parsed = DefaultParseValue(text)
    if allowed is None:
        return _with_yaml_words(parsed)
    if not isinstance(parsed, str):
        return parsed
    word = parsed.lower()
    if word in ("true", "false") and bool in allowed:
        return YAML_WORDS[word]
    if None in allowed and (word == "null" or (word == "none" and str not in allowed)):
        return None
    return parsed


def _with_yaml_words(value: Any) -> Any:
    if isinstance(value, str):
        return YAML_WORDS.get(value.lower(), value)
    if isinstance(value, list | tuple):
        return type(value)(_with_yaml_words(item) for item in value)
    return value


def _declared(owner: cfn.Config, name: str) -> tuple[type | None, ...] | None:
    """Return a parameter's annotated types if all are simple; None otherwise."""
    parameter = parameters(owner).get(name)
    if parameter is None or parameter.annotation is inspect.Parameter.empty:
        return None
    annotation = parameter.annotation
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    members = typing.get_args(annotation) if union else (annotation,)
    declared = tuple(None if member is type(None) else member for member in members)
    return declared if all(m is None or m in SIMPLE for m in declared) else None


def _cause(error: cfn.ConfigError, value: Any) -> str:
    """Return why a reference such as ``@module.name`` did not resolve, with the module's names."""
    cause = error.__cause__
    while cause is not None and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, AttributeError) and isinstance(cause.obj, types.ModuleType):
        offered = [n for n, v in vars(cause.obj).items() if isinstance(v, cfn.Config)]
        hint = did_you_mean(str(cause.name), offered)
        listed = ", ".join(offered) or "nothing"
        return f"{cause.obj.__name__} has no {cause.name!r}{hint}; it offers: {listed}"
    if isinstance(cause, ImportError):
        return f"no such module: {str(value).lstrip('@.')}"
    return str(cause or error)
