"""``getiaction fit|validate|test|predict``: Lightning's command line over one YAML file.

This module imports little, so that a mistyped command is reported at once; training is in
:mod:`getiaction.cli.command`, whose imports take seconds.
"""

import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from foundation.console import EXIT_ERROR, EXIT_USAGE, exit_status
from foundation.errors import UsageError
from foundation.text import did_you_mean
from getiaction import deferred_imports
from getiaction.cli.commands import COMMANDS, HELP, PROG, TRACEBACK_VARIABLE


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status.

    0, 1 after an error, 2 after an invalid command line, 130 after Ctrl-C and 143 after SIGTERM.

    Args:
        argv: The arguments; by default ``sys.argv[1:]``.
    """
    if argv is None:
        deferred_imports.install()
    return exit_status(
        PROG,
        lambda: _stoppable(list(sys.argv[1:] if argv is None else argv)),
        traceback_variable=TRACEBACK_VARIABLE,
        understand=_misconfiguration,
    )


def _stoppable(argv: list[str]) -> int:
    """Run the command line; what Lightning makes of signals is made undone."""
    try:
        return _run(argv)
    except SystemExit as stop:
        # Lightning makes an exit status of 1 of Ctrl-C.
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise stop.__context__ from None
        if type(stop).__name__ == "SIGTERMException":  # Lightning's, which has no code
            print(f"{PROG}: SIGTERM: ended; --ckpt_path resumes from a checkpoint", file=sys.stderr)
            return 128 + signal.SIGTERM
        return stop.code if isinstance(stop.code, int) else EXIT_ERROR if stop.code else 0


def _run(argv: list[str]) -> int:
    first = argv[0] if argv else "--help"
    if first in ("--help", "-h", "help"):
        print(HELP, end="")
        return 0 if argv else EXIT_USAGE
    if first == "--version":
        print(f"positronic-lightning {version('positronic-lightning')}")
        return 0
    if not first.startswith("-") and first not in COMMANDS:
        raise UsageError(
            f"there is no command {first!r}{did_you_mean(first, COMMANDS)}; the commands are: "
            f"{', '.join(COMMANDS)}"
        )
    from getiaction.cli.files import native_config, read_configs

    # Before the imports that take seconds.
    configs = read_configs(argv)
    whole = native_config(argv[0], configs, argv)
    if whole is None and first in COMMANDS and _is_answered(argv, configs):
        return 0
    if sys.stderr.isatty():
        print(f"{PROG} {first}: loading PyTorch, Lightning and LeRobot ...", file=sys.stderr)
    if whole is not None:
        from getiaction.trainers import run_config

        run_config(whole)
    else:
        from getiaction.cli.command import run

        run(argv)
    return 0


def _is_answered(argv: list[str], configs: list[dict[str, Any]]) -> bool:
    """Print a command's help, or refuse unknown options, if that needs no slow imports."""
    from getiaction.cli.quick import read_table, refuse_unknown

    table = read_table()
    if table is None:
        return False
    if argv[1:] in (["--help"], ["-h"]):
        print(table.help(argv[0]), end="")
        return True
    refuse_unknown(table, argv, configs)
    return False


def _misconfiguration(error: BaseException) -> str | None:
    # Lightning's own, by name: importing it takes seconds.
    return str(error) if type(error).__name__ == "MisconfigurationException" else None
