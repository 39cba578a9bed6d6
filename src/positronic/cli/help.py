"""Help texts from the signatures, docstrings and present values of a config."""

import inspect
import textwrap
from collections.abc import Mapping
from typing import Any

import configuronic as cfn

from positronic.cli.components import component_of

WIDTH = 100
EXAMPLE = "Example:"


def parameters(config: cfn.Config) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a config's target by name."""
    return inspect.signature(config.target).parameters


def of_program(commands: Mapping[str, cfn.Config], prog: str) -> str:
    """Return the help for a program with subcommands."""
    width = max(len(name) for name in commands) + 2
    lines = [f"usage: {prog} COMMAND [--flag=value ...]", "", "commands:"]
    lines += [f"  {name:<{width}}{_summary(config)}" for name, config in commands.items()]
    examples = [_docstring(config)[1].get(EXAMPLE, "") for config in commands.values()]
    lines += ["", *(f"example: {each}" for each in [*filter(None, examples)][:1])]
    return "\n".join([*lines, f"{prog} COMMAND --help explains one."])


def of_command(config: cfn.Config, prog: str) -> str:
    """Return the help for one command: its description, then each flag with default and meaning."""
    described, explained = _docstring(config)
    words = [name.upper() for name in positional(config)]
    lines = [" ".join([f"usage: {prog}", *words, "[--flag=value ...]"]), "", described, ""]
    if example := explained.get(EXAMPLE):
        lines += [f"example: {example}", ""]
    flags = _flag_lines(config, "", prog)
    lines += ["flags:", *flags]
    if any("One of:" in line for line in flags):
        lines += [
            "",
            "A name is given as listed or without its dot; @module.name is one of your own.",
        ]
    return "\n".join(lines)


def positional(config: cfn.Config) -> list[str]:
    """Return the names of the required parameters, which words without a flag fill in order."""
    return [
        name
        for name, parameter in parameters(config).items()
        if parameter.default is inspect.Parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        and name not in config.kwargs
    ]


def missing(config: cfn.Config, prefix: str = "") -> list[str]:
    """Return the dotted names of the arguments that have no value yet."""
    names: list[str] = []
    for name, parameter in parameters(config).items():
        value = config.kwargs.get(name, parameter.default)
        if isinstance(value, cfn.Config):
            names += missing(value, f"{prefix}{name}.")
        elif value is inspect.Parameter.empty and parameter.kind not in (
            inspect.Parameter.VAR_KEYWORD,
            inspect.Parameter.VAR_POSITIONAL,
        ):
            names.append(prefix + name)
    return names


def _flag_lines(config: cfn.Config, prefix: str, prog: str) -> list[str]:
    """Return the lines of each flag; parts that need nothing come after the config's own flags."""
    _, explained = _docstring(config)
    lines: list[str] = []
    later: list[str] = []
    names = dict.fromkeys([*parameters(config), *config.kwargs])
    for name in names:
        parameter = parameters(config).get(name)
        if parameter is not None and parameter.kind in (
            inspect.Parameter.VAR_KEYWORD,
            inspect.Parameter.VAR_POSITIONAL,
        ):
            continue
        default = inspect.Parameter.empty if parameter is None else parameter.default
        value = config.kwargs.get(name, default)
        flag = f"--{prefix}{name}"
        head = f"  {flag}{_shown(config, name, value)}"
        text = f"{explained.get(name, '')} {_choices(config, name, value, flag, prog)}".strip()
        wrapped = textwrap.wrap(text, WIDTH - 30)
        if len(head) <= 28 and wrapped:
            lines.append(f"{head:<30}{wrapped[0]}")
            wrapped = wrapped[1:]
        else:
            lines.append(head)
        lines += [" " * 30 + line for line in wrapped]
        if isinstance(value, cfn.Config):
            below = _flag_lines(value, f"{prefix}{name}.", prog)
            lines, later = (lines + below, later) if missing(value) else (lines, later + below)
    return lines + later


def _choices(config: cfn.Config, name: str, value: Any, flag: str, prog: str) -> str:
    """Return what a component may be, and how to see its flags if none is chosen yet."""
    component = component_of(config, name)
    if component is None or not component.modules:
        return ""
    choices = f"One of: {component.choices()}."
    if not component.is_none(value):
        return choices
    example = component.example or next(iter(component.configs()))
    return f"{choices} `{prog} {flag}=.{example} --help` shows the flags of that one."


def _shown(config: cfn.Config, name: str, value: Any) -> str:
    component = component_of(config, name)
    if component is not None and component.none and component.is_none(value):
        return "=..."
    if component is not None and isinstance(value, cfn.Config):
        short = component.name_of(value)
        if short is not None:
            return f"={short}"
    if value is inspect.Parameter.empty:
        return "=...  (required)"
    if isinstance(value, cfn.Config):
        return f"=@{value.target.__module__}.{value.target.__name__}"
    return f"={value}"


def _summary(config: cfn.Config) -> str:
    described, _ = _docstring(config)
    return described.split("\n\n")[0].replace("\n", " ")


def _docstring(config: cfn.Config) -> tuple[str, dict[str, str]]:
    """Split a Google-style docstring into its description and its ``Args:``."""
    described: list[str] = []
    explained: dict[str, str] = {}
    section, current = "", ""
    for line in inspect.cleandoc(config.target.__doc__ or "").splitlines():
        if not line.startswith(" ") and line.rstrip() in ("Args:", "Returns:", "Raises:", EXAMPLE):
            section = line.rstrip()
        elif section == "Args:" and line.startswith("    ") and not line.startswith("     "):
            current, _, text = line.strip().partition(":")
            current = current.split(" ")[0].lstrip("*")
            explained[current] = text.strip()
        elif section == EXAMPLE and line.strip():
            explained[EXAMPLE] = f"{explained.get(EXAMPLE, '')} {line.strip()}".strip()
        elif section == "Args:" and current:
            explained[current] = f"{explained[current]} {line.strip()}".strip()
        elif not section:
            described.append(line)
    return "\n".join(described).strip(), explained
