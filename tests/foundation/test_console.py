"""Exit statuses and one-line errors of a program."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from foundation.console import EXIT_ERROR, EXIT_USAGE, exit_status
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
