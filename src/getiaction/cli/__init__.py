"""``getiaction fit|validate|test|predict``: Lightning's command line over one YAML file.

This module imports little, so that a mistyped command is reported at once; training is in
:mod:`getiaction.cli.command`, whose imports take seconds.
"""

import difflib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version

from foundation.errors import FoundationError, UsageError, missing_package
from foundation.writable import describe
from getiaction import deferred_imports

EXIT_ERROR, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
TRACEBACK_VARIABLE = "GETIACTION_TRACEBACK"
PROG = "getiaction"
COMMANDS = {
    "fit": "train a policy on a dataset",
    "validate": "compute the held-out loss and roll the policy out in val_gyms",
    "test": "roll the policy out in test_gyms",
    "predict": "predict action chunks for a dataset",
}
HELP = f"""\
usage: {PROG} COMMAND --config FILE.yaml [--KEY VALUE ...]

LeRobot's policies under Lightning.

commands:
{"".join(f"  {name:<10} {text}{os.linesep}" for name, text in COMMANDS.items())}
  {PROG} COMMAND --help                    every option of a command
  {PROG} COMMAND --model.help ACT          the options of a policy, here ACT
  {PROG} COMMAND --config X --print_config the effective configuration, with all defaults
  {PROG} --print_completion bash           a completion script; or zsh, fish, tcsh, powershell
  {PROG} --version

example:
  {PROG} fit --config configs/lerobot_act.yaml --model.init_args.dim_model 1024

{TRACEBACK_VARIABLE}=1 shows where in the code an error came from.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status.

    0, 1 after an error, 2 after an invalid command line, 130 after Ctrl-C and 143 after SIGTERM.

    Args:
        argv: The arguments; by default ``sys.argv[1:]``.
    """
    try:
        if argv is None:
            deferred_imports.install()
        return _run(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        return _interrupted()
    except SystemExit as stop:
        # Lightning converts Ctrl-C to exit status 1.
        if any(isinstance(cause, KeyboardInterrupt) for cause in _causes(stop)):
            return _interrupted()
        if type(stop).__name__ == "SIGTERMException":  # Lightning's, without an exit code
            print(f"{PROG}: SIGTERM: ended; --ckpt_path resumes from a checkpoint", file=sys.stderr)
            return 128 + signal.SIGTERM
        return stop.code if isinstance(stop.code, int) else EXIT_ERROR if stop.code else 0
    except BrokenPipeError:
        # The reader of the pipe has gone (`| head`): exit as other programs do.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - it lives until the process ends
        return 128 + signal.SIGPIPE
    except Exception as error:  # top level: print a message instead of a traceback
        known = _known(error)
        if known is None or os.environ.get(TRACEBACK_VARIABLE):
            traceback.print_exc()
        if known is None:
            print(f"{PROG}: this is a bug; please report the lines above", file=sys.stderr)
            return EXIT_ERROR
        print(f"{PROG}: error: {one_line(_message(known))}", file=sys.stderr)
        return EXIT_USAGE if isinstance(known, UsageError) else EXIT_ERROR


def _run(argv: list[str]) -> int:
    first = argv[0] if argv else "--help"
    if first in ("--help", "-h", "help"):
        print(HELP, end="")
        return 0 if argv else EXIT_USAGE
    if first == "--version":
        print(f"{PROG} {version('positronic-lightning')}")
        return 0
    if not first.startswith("-") and first not in COMMANDS:
        raise UsageError(
            f"there is no command {first!r} ({', '.join(COMMANDS)}){did_you_mean(first, COMMANDS)}"
        )
    from getiaction.cli.files import native_config, read_configs

    # Before the imports that take seconds.
    whole = native_config(argv[0], read_configs(argv), argv)
    if whole is not None:
        from getiaction.trainers import run_config

        run_config(whole)
    else:
        from getiaction.cli.command import run

        run(argv)
    return 0


def did_you_mean(word: str, offered: Sequence[str] | dict[str, str]) -> str:
    """Return ``"; did you mean ...?"`` with the closest of ``offered``, or an empty string."""
    near = difflib.get_close_matches(word, list(offered), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def one_line(text: str) -> str:
    """Return ``text`` without its line breaks."""
    return " ".join(text.split())


def _interrupted() -> int:
    print(f"{PROG}: interrupted", file=sys.stderr)
    return EXIT_INTERRUPTED


def _causes(error: BaseException) -> list[BaseException]:
    """``error`` and its causes; jsonargparse wraps exceptions of the classes it creates."""
    found: list[BaseException] = []
    following: BaseException | None = error
    while following is not None:
        found.append(following)
        following = following.__cause__ or following.__context__
    return found


def _known(error: Exception) -> BaseException | None:
    """The error with a message for the user, among the error and its causes."""
    if _missing(error):
        return error
    return next((cause for cause in _causes(error) if _is_user_error(cause)), None)


def _message(error: BaseException) -> str:
    if isinstance(error, OSError):
        return describe(error)
    package = _missing(error)
    return missing_package(package, "train") if package else str(error)


def _missing(error: BaseException) -> str:
    """The package that is not installed, if that is the error; not one of our own modules."""
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    package = (name or "").partition(".")[0]
    return "" if package == __package__.partition(".")[0] else package


def _is_user_error(error: BaseException) -> bool:
    if isinstance(error, FoundationError | OSError):
        return True
    # Lightning's class, compared by name as its import takes seconds.
    return type(error).__name__ == "MisconfigurationException"
