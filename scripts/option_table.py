"""Write the table by which ``getiaction`` answers ``--help`` and unknown options at once.

Run ``python scripts/option_table.py`` after a change of the options of ``getiaction``, of the
sources that the table names, or of versions; a test compares.
"""

import inspect
import json
from importlib.metadata import version
from typing import Any

from jsonargparse import ArgumentParser
from jsonargparse._actions import filter_non_parsing_actions

from getiaction import deferred_imports
from getiaction.cli.quick import ROOT, TABLE, digests

MADE_WITH = ("docstring-parser", "jsonargparse", "lerobot", "lightning", "torch", "torchmetrics")
# What determines options and is no class that --help shows.
SOURCES = (
    "cli/command.py",
    "data/__init__.py",
    "policies/lerobot/__init__.pyi",
    "policies/lerobot/named.py",
    "train/__init__.py",
    "train/callbacks/__init__.py",
)


def table() -> str:
    """Return the text of the table."""
    from lightning.pytorch import Callback

    from getiaction.cli import command
    from getiaction.cli.classes import descendants
    from getiaction.data import DataModule, LeRobotDataModule
    from getiaction.policies.base import Policy
    from getiaction.train import Trainer
    from getiaction.train.base import BaseTrainer

    parsers = _parsers(command)
    options: list[dict[str, Any]] = []
    commands = {}
    for name, parser in parsers.items():
        groups = []
        for group in parser._action_groups:
            shown = [_option(parser, action) for action in group._group_actions]
            options += [option for option in shown if option not in options]
            indices = [options.index(option) for option in shown]
            if indices:
                groups.append({"title": group.title, "options": indices})
        commands[name] = {"description": parser.description, "groups": groups}
    classes = [Trainer, BaseTrainer, Policy, DataModule, LeRobotDataModule, *descendants(Callback)]
    ours = {inspect.getfile(each) for each in classes if each.__module__.startswith("getiaction")}
    sources = sorted({*SOURCES, *(file[len(f"{ROOT}/") :] for file in ours)})
    content = {
        "made_with": {package: version(package) for package in MADE_WITH},
        "sources": digests(sources),
        "options": options,
        "commands": commands,
        "classes": {kind.__name__: _arguments(kind) for kind in (DataModule, LeRobotDataModule)},
    }
    return json.dumps(content, indent=1) + "\n"


def _parsers(command: Any) -> dict[str, Any]:
    """The parsers of the program's commands; nothing is run."""

    class Parsers(Exception):
        """What ends the command line when its parsers are made."""

    def parse_arguments(self: Any, *_: Any) -> None:
        raise Parsers(dict(zip(self.subcommands(), self.parsers, strict=True)))

    command.Command.parse_arguments = parse_arguments
    try:
        command.run([])
    except Parsers as made:
        found: dict[str, Any] = made.args[0]
        return found
    raise AssertionError("the command line was not parsed")


def _option(parser: Any, action: Any) -> dict[str, Any]:
    formatter = parser._get_formatter()
    return {
        "flags": action.option_strings,
        "nargs": action.nargs,
        "metavar": action.metavar or formatter._get_default_metavar_for_optional(action),
        "help": formatter._expand_help(action),
        "in_usage": bool(filter_non_parsing_actions([action])),  # type: ignore[no-untyped-call]
    }


def _arguments(kind: type[Any]) -> list[str]:
    names = ArgumentParser(exit_on_error=False).add_class_arguments(kind, fail_untyped=False)
    return list(dict.fromkeys(name.partition(".")[0] for name in names))


if __name__ == "__main__":
    deferred_imports.install()
    TABLE.write_text(table())
    print(f"wrote {TABLE}")
