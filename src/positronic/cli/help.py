"""Help texts from the signatures, docstrings and present values of a config."""

import inspect
import textwrap
from collections.abc import Mapping
from typing import Any

import configuronic as cfn

WIDTH = 100


def parameters(config: cfn.Config) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a config's target by name."""
    return inspect.signature(config.target).parameters


def of_program(commands: Mapping[str, cfn.Config], prog: str) -> str:
    """Return the help for a program with subcommands."""
    width = max(len(name) for name in commands) + 2
    lines = [f"usage: {prog} COMMAND [--flag=value ...]", "", "commands:"]
    lines += [f"  {name:<{width}}{_summary(config)}" for name, config in commands.items()]
    return "\n".join([*lines, "", f"{prog} COMMAND --help explains one."])


def of_command(config: cfn.Config, prog: str) -> str:
    """Return the help for one command: its description, then each flag with default and meaning."""
    described, _ = _docstring(config)
    lines = [f"usage: {prog} [--flag=value ...]", "", described, "", "flags:"]
    lines += _flag_lines(config, "")
    references = "A flag whose value begins with @ or . takes a config by name: @module.name or "
    return "\n".join([*lines, "", references + ".name beside the default."])


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


def _flag_lines(config: cfn.Config, prefix: str) -> list[str]:
    _, explained = _docstring(config)
    lines: list[str] = []
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
        head = f"  --{prefix}{name}{_shown(value)}"
        text = explained.get(name, "")
        wrapped = textwrap.wrap(text, WIDTH - 30)
        if len(head) <= 28 and wrapped:
            lines.append(f"{head:<30}{wrapped[0]}")
            wrapped = wrapped[1:]
        else:
            lines.append(head)
        lines += [" " * 30 + line for line in wrapped]
        if isinstance(value, cfn.Config):
            lines += _flag_lines(value, f"{prefix}{name}.")
    return lines


def _shown(value: Any) -> str:
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
        if not line.startswith(" ") and line.rstrip() in ("Args:", "Returns:", "Raises:"):
            section = line.rstrip()
        elif section == "Args:" and line.startswith("    ") and not line.startswith("     "):
            current, _, text = line.strip().partition(":")
            current = current.split(" ")[0].lstrip("*")
            explained[current] = text.strip()
        elif section == "Args:" and current:
            explained[current] = f"{explained[current]} {line.strip()}".strip()
        elif not section:
            described.append(line)
    return "\n".join(described).strip(), explained
