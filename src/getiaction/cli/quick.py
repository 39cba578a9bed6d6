"""``COMMAND --help``, and refusals of unknown options, from a generated table: no slow imports.

``scripts/option_table.py`` writes the table. It is used only with the versions and sources that it
was made from; otherwise, and where it cannot decide, jsonargparse answers, after seconds.
"""

import argparse
import ast
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from foundation.documents import Reader
from foundation.errors import FoundationError, UsageError
from foundation.text import did_you_mean
from getiaction.cli.commands import PROG

TABLE = Path(__file__).with_name("options.json")
ROOT = Path(__file__).parents[1]
STUB = ROOT / "policies/lerobot/__init__.pyi"
# By the part of a configuration that names a class: the package of ours that has such classes.
PARTS = {"model": "getiaction.policies.lerobot", "data": "getiaction.data"}
# Keys beside a class's own arguments.
RESERVED = ("class_path", "init_args", "dict_kwargs", "help")

_READER = Reader(error=FoundationError, size=1 << 20, values=100_000)


class Option(BaseModel):
    """One option as ``argparse`` shows it."""

    flags: list[str]
    nargs: str | int | None
    metavar: str | None
    help: str
    in_usage: bool


class Group(BaseModel):
    """Options under one heading, as indices into the table's ``options``."""

    title: str
    options: list[int]


class Command(BaseModel):
    """The parser of one command."""

    description: str
    groups: list[Group]


class Table(BaseModel):
    """All commands, the arguments of data modules, and what they were made from."""

    made_with: dict[str, str]
    sources: dict[str, str]
    options: list[Option]
    commands: dict[str, Command]
    classes: dict[str, list[str]]

    def help(self, command: str) -> str:
        """Return what ``COMMAND --help`` prints."""
        given = self.commands[command]
        parser = argparse.ArgumentParser(
            prog=f"{PROG} [options] {command}",
            description=given.description,
            formatter_class=_Formatter,
            add_help=False,
        )
        for group in given.groups:
            titled = parser.add_argument_group(group.title)
            for index in group.options:
                option = self.options[index]
                action = titled.add_argument(
                    *option.flags,
                    dest=option.flags[0],
                    nargs=option.nargs,
                    action=_Shown,
                    metavar=option.metavar,
                    help=option.help.replace("%", "%%"),
                )
                action.in_usage = option.in_usage  # type: ignore[attr-defined]
        return parser.format_help()

    def names(self, command: str) -> set[str]:
        """Return the command's options, without dashes."""
        indices = (index for group in self.commands[command].groups for index in group.options)
        return {flag.lstrip("-") for index in indices for flag in self.options[index].flags}


class _Shown(argparse.Action):
    """Option that is only shown; nothing is parsed here."""


class _Formatter(argparse.HelpFormatter):
    def add_usage(self, usage: Any, actions: Any, *args: Any, **kwargs: Any) -> None:
        shown = [action for action in actions if action.in_usage]
        super().add_usage(usage, shown, *args, **kwargs)


def read_table() -> Table | None:
    """Return the table; None if other versions or sources are here than it was made from."""
    table = _READER.load_json(TABLE, Table)
    try:
        same = table.made_with == {name: version(name) for name in table.made_with}
        return table if same and table.sources == digests(table.sources) else None
    except (PackageNotFoundError, FileNotFoundError):
        return None


def digests(names: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """Return the digest of each source, named below the package's directory."""
    return {name: hashlib.sha256((ROOT / name).read_bytes()).hexdigest() for name in names}


def refuse_unknown(table: Table, argv: Sequence[str], configs: Sequence[Mapping[str, Any]]) -> None:
    """Check the options of a command line and its files, as far as the table knows them.

    Raises:
        UsageError: the command has no such option, or the class none of such arguments, or there is
            neither a model nor a dataset.
    """
    command, *words = argv
    given = list(_flags(words))
    if "--" in words or "-h" in words or any(_asks_help(name) for name, _ in given):
        return
    names = table.names(command)
    offered = [name for name in names if not name.endswith(".help")]
    for name, _ in given:
        if not _is_known(name, names):
            raise UsageError(no_option(f"--{name}", [f"--{each}" for each in offered]))
    for config in configs:
        for name in _keys(config, names):
            if not _is_known(name, names):
                raise UsageError(no_option(name, offered))
    for part in PARTS:
        _refuse_arguments(table, part, given, configs)
    if not {"config", "print_config"} & {name for name, _ in given} and "-c" not in words:
        needed = [part for part in sorted(PARTS) if not any(_is_in(n, part) for n, _ in given)]
        if needed:
            raise UsageError(still_needed(command, needed))


def no_option(name: str, offered: Sequence[str]) -> str:
    """Message for an unknown option."""
    return f"there is no option {name!r}{did_you_mean(name, offered)}"


def no_argument(part: str, owner: str, name: str, offered: Sequence[str]) -> str:
    """Message for an option that a class does not have."""
    return f"{part}{owner} has no option {name!r}{did_you_mean(name, offered)}"


def still_needed(command: str, parts: Sequence[str]) -> str:
    """Message for a command line without a policy or a dataset."""
    what = " and ".join(parts)
    return f"what is still needed: {what}; give --config FILE.yaml (see {PROG} {command} --help)"


def _flags(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the name and value of each option, as ``argparse`` would tell them from values."""
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        name, equals, value = word.partition("=")
        if name.startswith("--") and " " not in name:
            yield name[2:].replace("+", ""), value if equals else following


def _asks_help(name: str) -> bool:
    return name == "help" or name.endswith(".help")


def _is_in(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def _is_known(name: str, names: set[str]) -> bool:
    """Return whether it is an option, or a part of one that is not a group of options."""
    parts = name.split(".")
    outer = (".".join(parts[:length]) for length in range(1, len(parts)))
    return name in names or any(each in names and not _is_group(each, names) for each in outer)


def _is_group(name: str, names: set[str]) -> bool:
    return any(each.startswith(f"{name}.") and not each.endswith(".help") for each in names)


def _keys(config: Mapping[str, Any], names: set[str], before: str = "") -> Iterator[str]:
    """Yield the dotted keys of a configuration, down to options and their values."""
    for key, value in config.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping) and (name not in names or _is_group(name, names)):
            yield from _keys(value, names, f"{name}.")
        else:
            yield name


def _refuse_arguments(
    table: Table,
    part: str,
    given: Sequence[tuple[str, str]],
    configs: Sequence[Mapping[str, Any]],
) -> None:
    paths = {value for name, value in given if name in (part, f"{part}.class_path")}
    arguments = [
        name.removeprefix(f"{part}.").removeprefix("init_args.").partition(".")[0]
        for name, _ in given
        if name.startswith(f"{part}.")
    ]
    for config in configs:
        chosen = config.get(part)
        if isinstance(chosen, Mapping):
            paths.add(str(chosen.get("class_path")))
            inside = chosen.get("init_args")
            arguments += list(inside) if isinstance(inside, Mapping) else []
        elif chosen is not None:
            paths.add(str(chosen))
    # Of several classes, jsonargparse knows which arguments belong to which.
    if len(paths) != 1:
        return
    module, _, owner = paths.pop().rpartition(".")
    offered = (table.classes.get(owner) if part == "data" else _fields(owner)) or []
    if not offered or (module and not _is_in(module, PARTS[part])):
        return
    for name in arguments:
        if name not in (*offered, *RESERVED):
            raise UsageError(no_argument(f"{part}: ", owner, str(name), offered))


def _fields(policy: str) -> list[str] | None:
    """Return the settings of a policy from the stub; None if it is not there."""
    for statement in ast.parse(STUB.read_bytes()).body:
        if isinstance(statement, ast.ClassDef) and statement.name == policy:
            (init,) = (each for each in statement.body if isinstance(each, ast.FunctionDef))
            return [argument.arg for argument in init.args.kwonlyargs]
    return None
