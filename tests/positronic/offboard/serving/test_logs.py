import json
import logging
from collections.abc import Iterator

import pytest

from positronic.errors import UsageError
from positronic.offboard.serving.logs import configure, log

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
    with pytest.raises(UsageError, match="--log_format=xml is no format; choose text or json"):
        configure("xml")
