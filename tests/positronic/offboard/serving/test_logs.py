import json
import logging
from collections.abc import Iterator

import pytest

from foundation.errors import UsageError
from positronic.offboard.serving.logs import MAX_KINDS, SAME_LINES, SAME_LINES_S, configure, log

logger = logging.getLogger("positronic.offboard.test")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root, package = logging.getLogger(), logging.getLogger("positronic")
    handlers, level, own = root.handlers[:], root.level, package.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    package.setLevel(own)


def test_text_is_one_line_for_each_event(capsys: pytest.CaptureFixture[str]) -> None:
    configure("text")
    log(logger, "opened", session="s12", why="all is well", empty="")
    logging.getLogger("other").info("not ours")
    (line,) = capsys.readouterr().err.splitlines()
    time, rest = line.split(" ", 1)
    assert rest == 'info opened session=s12 why="all is well" empty=""'
    assert time.endswith("Z")


def test_what_a_client_sends_makes_no_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    configure("text")
    log(logger, "refused", why="x\n2026-01-01T00:00:00.000Z info opened session=s1\x1b[2J")
    logger.info("checkpoint %s", "a\nb")
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 2
    assert "x 2026" in err
    assert "\x1b" not in err


def test_json_is_one_object_for_each_event(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json")
    log(logger, "opened", session="s12", seconds=0.5, odd=Exception("no JSON"))
    try:
        raise ValueError("at fault")
    except ValueError:
        log(logger, "failed", level=logging.ERROR, exc_info=True, session="s13")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "info",
        "logger": "positronic.offboard.test",
        "event": "opened",
        "session": "s12",
        "seconds": 0.5,
        "odd": "no JSON",
    }
    assert second["level"] == "error"
    assert second["traceback"].endswith("ValueError: at fault")


def test_another_format_is_refused() -> None:
    with pytest.raises(UsageError, match="--log_format=xml is not a format; choose text or json"):
        configure("xml")


def test_a_flood_of_one_line_is_counted_and_others_are_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    configure("text")
    for number in range(8000):
        log(logger, "refused", level=logging.WARNING, client=number)
        logger.warning("invalid request %d", number)
    log(logger, "opened", session="s1")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 * SAME_LINES + 1
    assert lines[-1].endswith("info opened session=s1")
    now += SAME_LINES_S + 1
    log(logger, "refused", level=logging.WARNING, client=1)
    log(logger, "refused", level=logging.WARNING, client=2)
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith(f"client=1 more={8000 - SAME_LINES}")
    assert second.endswith("client=2")


def test_a_million_kinds_of_lines_are_not_remembered(capsys: pytest.CaptureFixture[str]) -> None:
    configure("text")
    for number in range(20_000):
        logger.warning(f"{number} is a line of its own")
    assert len(capsys.readouterr().err.splitlines()) <= MAX_KINDS + SAME_LINES


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_line_has_a_bounded_length_and_nothing_that_a_terminal_obeys(
    capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    configure(log_format)
    strange = "\x1b]0;title\x07\u202e\x9b2J" * 100_000
    log(logger, "failed", why=strange, key={strange: [strange]})
    try:
        raise ValueError(strange)
    except ValueError:
        log(logger, "failed", exc_info=True)
    logger.error(strange)
    err = capsys.readouterr().err
    assert len(err) < 50_000
    assert all(c.isprintable() or c == "\n" for c in err)


def test_a_traceback_makes_no_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    configure("text")
    try:
        raise ValueError("x\n2026-01-01T00:00:00.000Z info opened session=s1")
    except ValueError:
        log(logger, "failed", exc_info=True)
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("2026-01-01")] == []
    assert len([line for line in lines if not line.startswith("  ")]) == 1
