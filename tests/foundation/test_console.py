"""Exit statuses, one-line errors, colours and last lines of a program."""

import io
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from foundation.console import (
    EXIT_ERROR,
    EXIT_USAGE,
    coloured,
    command,
    exit_status,
    say_made,
    say_next,
)
from foundation.errors import FoundationError, UsageError


def run(work: Callable[[], int]) -> int:
    return exit_status(
        "prog",
        work,
        traceback_variable="PROG_TRACEBACK",
        understand=lambda error: "another's" if isinstance(error, LookupError) else None,
    )


def raising(error: BaseException, cause: BaseException | None = None) -> Callable[[], int]:
    def work() -> int:
        raise error from cause

    return work


def test_a_program_that_ends_well_has_its_own_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda: 3) == 3
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("work", "status", "line"),
    [
        (raising(FoundationError("no\nmore \x1b[2J")), EXIT_ERROR, "no more \\x1b[2J"),
        (raising(UsageError("--x is unknown")), EXIT_USAGE, "--x is unknown"),
        (
            raising(ValueError("wrapped"), UsageError("--x is unknown")),
            EXIT_USAGE,
            "--x is unknown",
        ),
        (raising(KeyError("theirs")), EXIT_ERROR, "another's"),
        (raising(ValueError("wrapped"), KeyError("theirs")), EXIT_ERROR, "another's"),
        (raising(FoundationError("")), EXIT_ERROR, "FoundationError"),
        (
            raising(ModuleNotFoundError("No module", name="gymnasium.envs")),
            EXIT_ERROR,
            "this needs the package 'gymnasium', which is not installed; install the extra that"
            " brings it: positronic-lightning[sim], in a checkout by `make` or `uv run"
            " --extra sim`",
        ),
    ],
)
def test_an_error_that_is_understood_is_one_line(
    work: Callable[[], int],
    status: int,
    line: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run(work) == status
    assert capsys.readouterr().err == f"prog: error: {line}\n"
    monkeypatch.setenv("PROG_TRACEBACK", "1")
    assert run(work) == status
    assert "Traceback" in capsys.readouterr().err


def read_and_break(missing: Path) -> int:
    try:
        missing.read_text()
    except FileNotFoundError:
        raise RuntimeError("the handler is wrong")  # noqa: B904 - the case
    return 0


@pytest.mark.parametrize(
    "work",
    [
        raising(RuntimeError("boom")),
        raising(ModuleNotFoundError("No module", name="positronic.gone")),
        lambda: read_and_break(Path("/nowhere/at/all")),
    ],
    ids=["bug", "own module", "bug in a handler"],
)
def test_anything_else_is_a_bug_with_its_traceback(
    work: Callable[[], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(work) == EXIT_ERROR
    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert printed.endswith("prog: this is a bug; please report the lines above\n")


def test_signals_have_the_status_that_shells_give_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(raising(KeyboardInterrupt())) == 128 + signal.SIGINT
    assert run(raising(KeyboardInterrupt(signal.SIGTERM))) == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "prog: interrupted\n" * 2


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("variable", "value", "shown"),
    [
        ("NO_COLOR", "", "\x1b[31mno\x1b[0m"),
        ("NO_COLOR", "1", "no"),
        ("TERM", "dumb", "no"),
    ],
)
def test_colours_are_for_terminals_that_may_have_them(
    variable: str, value: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv(variable, value)
    assert coloured("no", "red", Terminal()) == shown
    assert coloured("no", "red", io.StringIO()) == "no"


def test_an_error_is_red_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    run(raising(UsageError("--x is unknown")))
    assert terminal.getvalue() == "prog: \x1b[31merror:\x1b[0m --x is unknown\n"


def test_pages_are_named_by_their_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    say_made("report", "a b/report.html")
    say_made("report", "s3://bucket/report.html")
    say_made("dataset", "data")
    assert capsys.readouterr().out.splitlines() == [
        f"report: file://{tmp_path}/a%20b/report.html",
        "report: s3://bucket/report.html",
        "dataset: data",
    ]


def test_a_command_to_copy_is_quoted_and_found_by_a_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether or not the environment is activated; `python` is this environment's, too."""
    hostile = "--x=it's $HOME; [a,b]"
    words = ("python", "-c", "import sys; print(sys.prefix, *sys.argv[1:])", hostile)
    say_next(*words)
    line = capsys.readouterr().out
    assert line.startswith("next: ")
    shell = ["sh", "-c", line.removeprefix("next: ")]
    printed = subprocess.run(shell, capture_output=True, text=True, check=True).stdout
    assert printed == f"{sys.prefix} {hostile}\n"

    bin_directory = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", bin_directory + os.pathsep + os.environ["PATH"])
    assert command("python", "-V") == "python -V"
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.chdir(tmp_path)
    assert shlex.split(command("python", "-V"))[0] == f"{bin_directory}/python"
    assert command("no-such-program") == "no-such-program"
