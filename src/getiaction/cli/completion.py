"""Shell completion of commands, options and class names.

jsonargparse can write such a script itself, but it expands nested classes recursively, which takes
minutes and gigabytes for LeRobot's policies with their configurations.
"""

import argparse
from collections.abc import Iterable
from typing import Any

import shtab
from jsonargparse import ArgumentParser

from foundation.errors import UsageError
from foundation.text import did_you_mean
from getiaction.cli.classes import descendants
from getiaction.cli.commands import COMMANDS, PROG
from getiaction.data import LeRobotDataModule
from getiaction.policies.lerobot import LeRobotPolicy
from getiaction.policies.lerobot.named import policy_classes

OPTION = "--print_completion"


def completion_script(shell: str, parsers: dict[str, Any]) -> str:
    """Return a script that completes the program's command lines.

    Args:
        shell: ``bash``, ``zsh``, or another of ``shtab.SUPPORTED_SHELLS``.
        parsers: The parser of each command.

    Raises:
        UsageError: the shell is not supported.
    """
    if shell not in shtab.SUPPORTED_SHELLS:
        near = did_you_mean(shell, shtab.SUPPORTED_SHELLS)
        raise UsageError(
            f"no completion for the shell {shell!r} ({', '.join(shtab.SUPPORTED_SHELLS)}){near}"
        )
    program = argparse.ArgumentParser(prog=PROG)
    program.add_argument("--version", action="store_true")
    program.add_argument(OPTION, choices=list(shtab.SUPPORTED_SHELLS))
    commands = program.add_subparsers()
    for name, text in COMMANDS.items():
        _add_options(commands.add_parser(name, help=text), parsers[name])
    return shtab.complete(program, shell)


def _add_options(command: argparse.ArgumentParser, parser: Any) -> None:
    config: Any = command.add_argument("--config", "-c")
    config.complete = shtab.FILE
    command.add_argument("--print_config", action="store_true")
    policy_classes()
    policies = list(descendants(LeRobotPolicy))
    known = {"model", "data", "config"}
    command.add_argument("--model", choices=sorted(policy.__name__ for policy in policies))
    command.add_argument("--data", choices=[LeRobotDataModule.__name__, "DataModule"])
    for name in parser.get_defaults(skip_validation=True).keys():  # noqa: SIM118 - no mapping
        if name not in known:
            command.add_argument(f"--{name}")
    fields = {field for policy in policies for field in _arguments(policy)}
    for part, names in (("model", fields), ("data", _arguments(LeRobotDataModule))):
        for name in sorted(names):
            command.add_argument(f"--{part}.{name}")
            command.add_argument(f"--{part}.init_args.{name}")


def _arguments(kind: type[Any]) -> Iterable[str]:
    names: list[str] = ArgumentParser(exit_on_error=False).add_class_arguments(
        kind, fail_untyped=False
    )
    return names
