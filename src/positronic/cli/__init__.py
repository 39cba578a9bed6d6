"""Command-line runner for configuronic configs, with help and one-line errors for people.

A command is a ``cfn.Config``; ``--a.b=value`` overrides an argument, however deep,
``--a=@module.name`` puts another config in its place and ``--a=.name`` one from the module of the
present one. What configuronic leaves to its callers is added here: help that explains each flag
(from the ``Args:`` of the docstring), a suggestion for a mistyped one, and one line instead of a
traceback when something is wrong.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import configuronic as cfn

from foundation.errors import FoundationError, MissingDependency, UsageError, missing_package
from foundation.stopping import interrupt_at_every_signal
from foundation.text import printable
from foundation.writable import describe
from getiaction import deferred_imports
from positronic.cli import help as helptext
from positronic.cli.flags import Flags, apply_flags, parse_flags

TRACEBACK_VARIABLE = "POSITRONIC_TRACEBACK"
# Which extra of the distribution brings a package; whatever else is missing comes with training.
EXTRAS = {
    **dict.fromkeys(("av", "h5py", "jinja2", "markupsafe", "pyarrow"), "data"),
    **dict.fromkeys(("gymnasium", "mujoco"), "sim"),
    **dict.fromkeys(("fastapi", "prometheus_client", "starlette", "uvicorn"), "server"),
}
# Of an error: the longest are lists of flags.
LONGEST_ERROR = 4000
EXIT_ERROR, EXIT_USAGE = 1, 2

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
        prog: The program's name as typed, for help and errors.
        argv: The arguments; ``sys.argv[1:]`` unless given.
        prepare: May change the config and its flags before they are applied, as for a file of
            settings.

    A command ends with the int that it returns (None is 0), with 1 after an error that the program
    understands, with 2 after a command line that makes no sense, with 130 after Ctrl-C, 143 after
    SIGTERM, and 129 when its terminal is closed.
    """
    if argv is None:
        deferred_imports.install()
        interrupt_at_every_signal()
    sys.exit(status(commands, prog, sys.argv[1:] if argv is None else argv, prepare=prepare))


def status(
    commands: Commands, prog: str, argv: Sequence[str], *, prepare: Prepare | None = None
) -> int:
    """Run one command line and return its exit status; :func:`run` says which."""
    try:
        return _dispatch(commands, prog, list(argv), prepare)
    except KeyboardInterrupt as error:
        print(f"{prog}: interrupted", file=sys.stderr)
        # Python's own handler does not say which it was.
        number = next((each for each in error.args if isinstance(each, int)), signal.SIGINT)
        return 128 + number
    except BrokenPipeError:
        # The reader has gone (`| head`): nobody is left to tell, so die as other programs do.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - it lives until the process ends
        return 128 + signal.SIGPIPE
    except Exception as error:
        known = _known(error)
        if known is None or os.environ.get(TRACEBACK_VARIABLE):
            _print_traceback(error)
        if known is None:
            print(f"{prog}: this is a bug; please report the lines above", file=sys.stderr)
            return EXIT_ERROR
        print(f"{prog}: error: {_one_line(known)}", file=sys.stderr)
        return EXIT_USAGE if isinstance(known, UsageError) else EXIT_ERROR


def _dispatch(commands: Commands, prog: str, argv: list[str], prepare: Prepare | None) -> int:
    if isinstance(commands, dict):
        if not argv or argv[0] in ("--help", "-h", "help"):
            print(helptext.of_program(commands, prog))
            return 0 if argv else EXIT_USAGE
        name = argv.pop(0)
        if name not in commands:
            hint = helptext.did_you_mean(name, commands)
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


def _known(error: BaseException | None) -> Exception | None:
    """Find the error meant for people; configuronic wraps what a nested config raises."""
    while error is not None:
        if isinstance(error, FoundationError):
            return error
        if isinstance(error, OSError):
            return error
        if isinstance(error, ModuleNotFoundError) and error.name:
            package = error.name.partition(".")[0]
            if package not in ("positronic", "getiaction"):
                return MissingDependency(missing_package(package, EXTRAS.get(package, "train")))
        error = error.__cause__
    return None


def _one_line(error: Exception) -> str:
    told = describe(error) if isinstance(error, OSError) else str(error)
    # Whatever quotes a file, a server or a bucket comes through here, on its way to a terminal.
    return printable(told, LONGEST_ERROR).strip() or type(error).__name__


def _print_traceback(error: Exception) -> None:
    for line in "".join(traceback.format_exception(error)).splitlines():
        print("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line), file=sys.stderr)
