"""Command-line runner for configuronic configs, with help and one-line errors.

A command is a ``cfn.Config``; ``--a.b=value`` overrides an argument, however deep,
``--a=@module.name`` puts another config in its place and ``--a=.name`` one from the module of the
present one. Added to configuronic are help for each flag (from the ``Args:`` of the docstring), a
suggestion for a mistyped one, and one line instead of a traceback on errors.
"""

import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import configuronic as cfn

from foundation.console import EXIT_USAGE, exit_status
from foundation.errors import UsageError
from foundation.stopping import interrupt_at_every_signal
from foundation.text import did_you_mean
from getiaction import deferred_imports
from positronic.cli import help as helptext
from positronic.cli.flags import Flags, apply_flags, parse_flags

DISTRIBUTION = "positronic-lightning"
TRACEBACK_VARIABLE = "POSITRONIC_TRACEBACK"

type Commands = cfn.Config | dict[str, cfn.Config]
type Prepare = Callable[[cfn.Config, Flags], tuple[cfn.Config, Flags]]


def run(
    commands: Commands,
    prog: str,
    argv: Sequence[str] | None = None,
    *,
    prepare: Prepare | None = None,
) -> NoReturn:
    """Run one command line and exit the process with its status.

    Args:
        commands: One config, or configs by subcommand name.
        prog: The program's name for help and errors, if it cannot be told how it was started.
        argv: The arguments; ``sys.argv[1:]`` unless given.
        prepare: Called to change the config and its flags before they are applied, as for a file of
            settings.

    A command ends with the int that it returns (None is 0), with 1 after an error that the program
    understands, with 2 after an invalid command line, with 130 after Ctrl-C, 143 after SIGTERM, and
    129 when its terminal is closed.
    """
    if argv is None:
        deferred_imports.install()
        interrupt_at_every_signal()
        prog = as_typed(prog)
    sys.exit(status(commands, prog, sys.argv[1:] if argv is None else argv, prepare=prepare))


def status(
    commands: Commands, prog: str, argv: Sequence[str], *, prepare: Prepare | None = None
) -> int:
    """Run one command line and return its exit status; :func:`run` says which."""
    return exit_status(
        prog,
        lambda: _dispatch(commands, prog, list(argv), prepare),
        traceback_variable=TRACEBACK_VARIABLE,
    )


def as_typed(prog: str) -> str:
    """Return the name that this process was started by, ``prog`` if it is not one of ours."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None and spec.name.startswith("positronic."):
        return f"python -m {spec.name.removesuffix('.__main__')}"
    name = Path(sys.argv[0]).name
    return name if name.startswith("positronic-") else prog


def _dispatch(commands: Commands, prog: str, argv: list[str], prepare: Prepare | None) -> int:
    if "--version" in argv:
        print(f"{DISTRIBUTION} {version(DISTRIBUTION)}")
        return 0
    if isinstance(commands, dict):
        if not argv or argv[0] in ("--help", "-h", "help"):
            print(helptext.of_program(commands, prog))
            return 0 if argv else EXIT_USAGE
        name = argv.pop(0)
        if name not in commands:
            hint = did_you_mean(name, commands)
            raise UsageError(
                f"there is no command {name!r}{hint}; the commands are: {', '.join(commands)}"
            )
        prog, config = f"{prog} {name}", commands[name]
    else:
        config = commands
    wants_help = any(word in ("--help", "-h") for word in argv)
    flags: Flags = parse_flags([word for word in argv if word not in ("--help", "-h")], config)
    if prepare is not None:
        config, flags = prepare(config, flags)
    config = apply_flags(config, flags)
    if wants_help:
        print(helptext.of_command(config, prog))
        return 0
    missing = helptext.missing(config)
    if missing:
        listed = " ".join(f"--{name}=..." for name in missing)
        raise UsageError(f"still needed: {listed} (see {prog} --help)")
    result: Any = config.instantiate()
    return result if isinstance(result, int) and not isinstance(result, bool) else 0
