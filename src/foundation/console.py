"""Command-line shell: exit status, one line for a person on errors, colours, last lines."""

import os
import shlex
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, TextIO

from foundation.errors import FoundationError, UsageError
from foundation.text import printable
from foundation.writable import describe

EXIT_ERROR, EXIT_USAGE = 1, 2
# Characters of an error message; the longest list flags.
LONGEST_ERROR = 4000
# Import packages of this distribution: one that is missing is a bug, not an extra to install.
OWN = ("foundation", "getiaction", "positronic")
# The extra of the distribution that brings a package; any other package comes with training.
EXTRAS = {
    **dict.fromkeys(("av", "h5py", "jinja2", "markupsafe", "pyarrow"), "data"),
    **dict.fromkeys(("gymnasium", "mujoco"), "sim"),
    **dict.fromkeys(
        ("fastapi", "fastapi_offline", "prometheus_client", "starlette", "uvicorn"), "server"
    ),
}

COLOURS = {"bold": 1, "red": 31, "green": 32}

type Colour = Literal["bold", "red", "green"]
type Understand = Callable[[BaseException], str | None]


def exit_status(
    prog: str,
    work: Callable[[], int],
    *,
    traceback_variable: str,
    understand: Understand = lambda error: None,
) -> int:
    """Run a program and return its exit status; report an error on stderr.

    Args:
        prog: The program's name as typed, for the messages.
        work: The program; returns its status.
        traceback_variable: Environment variable that asks for the traceback of an error that is
            understood. For any other error, a bug, it is always printed.
        understand: Returns the message of an error that another library addresses to users; None
            for any other.

    Returns:
        What ``work`` returns, 1 after an error that is understood or a bug, 2 after a
        :class:`UsageError`, 128 and the signal's number after a signal or a broken pipe.
    """
    try:
        return work()
    except KeyboardInterrupt as error:
        print(f"{prog}: interrupted", file=sys.stderr)
        # Python's own handler does not say which signal it was.
        number = next((each for each in error.args if isinstance(each, int)), signal.SIGINT)
        return 128 + number
    except BrokenPipeError:
        # The reader has gone (`| head`): nobody is left to tell, so die as other programs do.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - it lives until the process ends
        return 128 + signal.SIGPIPE
    except Exception as error:  # the last place that can keep a traceback from users
        known, message = next(_understood(error, understand), (None, ""))
        if known is None or os.environ.get(traceback_variable):
            _print_traceback(error)
        if known is None:
            print(f"{prog}: this is a bug; please report the lines above", file=sys.stderr)
            return EXIT_ERROR
        # Text quoted from a file, a server or a bucket is made printable here.
        line = printable(message, LONGEST_ERROR).strip() or type(known).__name__
        print(f"{prog}: {coloured('error:', 'red', sys.stderr)} {line}", file=sys.stderr)
        return EXIT_USAGE if isinstance(known, UsageError) else EXIT_ERROR


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those it was raised from (``__cause__``, not ``__context__``)."""
    following: BaseException | None = error
    while following is not None:
        yield following
        following = following.__cause__


def _understood(error: Exception, understand: Understand) -> Iterator[tuple[BaseException, str]]:
    """Yield the causes meant for users, outermost first; libraries wrap each other's errors."""
    for cause in causes(error):
        if isinstance(cause, FoundationError):
            yield cause, str(cause)
        elif isinstance(cause, OSError):
            yield cause, describe(cause)
        elif isinstance(cause, ModuleNotFoundError) and cause.name:
            package = cause.name.partition(".")[0]
            if package not in OWN:
                yield cause, missing_package(package)
        elif (message := understand(cause)) is not None:
            yield cause, message


def missing_package(package: str) -> str:
    """Return the message for a ``package`` that is not installed: which extra brings it."""
    extra = EXTRAS.get(package, "train")
    return (
        f"this needs the package {package!r}, which is not installed; install the extra that brings"
        f" it: positronic-lightning[{extra}], in a checkout by `make` or `uv run --extra {extra}`"
    )


def _print_traceback(error: Exception) -> None:
    for line in "".join(traceback.format_exception(error)).splitlines():
        print("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line), file=sys.stderr)


def coloured(text: str, colour: Colour, stream: TextIO | None = None) -> str:
    """Return ``text`` in a colour if ``stream`` (stdout) is a terminal that may have colours.

    It may not where NO_COLOR is set, as https://no-color.org has it, or TERM is dumb.
    """
    refused = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if refused or not (sys.stdout if stream is None else stream).isatty():
        return text
    return f"\033[{COLOURS[colour]}m{text}\033[0m"


def say_made(what: str, place: str | Path, stream: TextIO | None = None) -> None:
    """Print what a command made, as ``dataset: PATH``; of a page the URL, ``report: file://PATH``.

    Args:
        what: The kind of thing.
        place: A path or an S3 address.
        stream: Stdout unless given.
    """
    shown = str(place)
    if shown.endswith(".html") and "://" not in shown:
        shown = Path(shown).expanduser().absolute().as_uri()
    print(f"{coloured(f'{what}:', 'bold', stream)} {shown}", file=stream, flush=True)


def say_next(*words: str, label: str = "next", stream: TextIO | None = None) -> None:
    """Print a command to copy, as ``next: PROGRAM --flag=value``, quoted for a shell.

    Args:
        words: The command.
        label: What it is for.
        stream: Stdout unless given.
    """
    print(f"{coloured(f'{label}:', 'bold', stream)} {command(*words)}", file=stream, flush=True)


def command(*words: str) -> str:
    """Return a command as a person pastes it into the shell that started this program.

    Words are quoted. A program of this environment that is not on the PATH gets its path.
    """
    return shlex.join([_program(words[0]), *words[1:]])


def _program(name: str) -> str:
    own = Path(sys.executable).parent / name
    if not own.is_file() or os.path.abspath(shutil.which(name) or "") == str(own):
        return name
    return str(own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own)
