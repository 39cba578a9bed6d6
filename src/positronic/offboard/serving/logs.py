"""Server log: one line per event, as text or JSON."""

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

from foundation.errors import UsageError
from foundation.text import printable

type LogFormat = Literal["text", "json"]
FORMATS = ("text", "json")
LONGEST_FIELD = 500
LONGEST_TRACEBACK = 8000
# Lines of one kind written per period, and its seconds; further ones are only counted.
SAME_LINES, SAME_LINES_S = 50, 10.0
# Kinds of lines that are distinguished, which bounds memory.
MAX_KINDS = 500

_announcements = logging.getLogger(f"{__name__}.announcements")


def log(
    logger: logging.Logger,
    event: str,
    *,
    level: int = logging.INFO,
    exc_info: bool = False,
    **fields: object,
) -> None:
    """Log one event with its fields, such as ``session=s12``."""
    if logger.isEnabledFor(level):
        logger.log(level, event, exc_info=exc_info, extra={"fields": fields})


def announce(line: str) -> None:
    """Log a line to stdout, for whoever started the server and waits for it to be ready."""
    _announcements.info(line)


def configure(log_format: str) -> None:
    """Log this package's events to stderr, of other packages only warnings.

    Raises:
        UsageError: There is no such format.
    """
    if log_format not in FORMATS:
        raise UsageError(f"--log_format={log_format} is not a format; choose text or json")
    handler, announcer = (logging.StreamHandler(stream) for stream in (sys.stderr, sys.stdout))
    for each in (handler, announcer):
        each.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    handler.addFilter(FloodFilter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("positronic").setLevel(logging.INFO)
    _announcements.handlers, _announcements.propagate = [announcer], False


class FloodFilter(logging.Filter):
    """Limits the lines of one kind per period, and counts those left out.

    Clients cause lines, and there may be many. The next line of the kind says with ``more=`` how
    many were left out before it.
    """

    def __init__(self, lines: int = SAME_LINES, seconds: float = SAME_LINES_S) -> None:
        """Allow ``lines`` of a kind in ``seconds``."""
        super().__init__()
        self._lines, self._seconds = lines, seconds
        self._until = 0.0
        self._written: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log the line; add ``more`` if lines were left out."""
        now = time.monotonic()
        if now > self._until:
            self._until = now + self._seconds
            self._written.clear()
        # Lines of a kind differ in arguments and fields, or after 40 characters.
        kind = f"{record.name} {record.levelno} {str(record.msg)[:40]}"
        if kind not in self._written and len(self._written) >= MAX_KINDS:
            kind = "others"
        self._written[kind] += 1
        if self._written[kind] > self._lines:
            self._left_out[kind] += 1
            return False
        if missing := self._left_out.pop(kind, 0):
            record.fields = {**_fields(record), "more": missing}
        if len(self._left_out) > MAX_KINDS:
            self._left_out.clear()
        return True


class TextFormatter(logging.Formatter):
    """``time level event key=value ...``; client data cannot start a new line."""

    def format(self, record: logging.LogRecord) -> str:
        """Make the line."""
        fields = "".join(f" {key}={_word(value)}" for key, value in _fields(record).items())
        said = printable(record.getMessage(), LONGEST_FIELD)
        return f"{_time(record)} {record.levelname.lower()} {said}{fields}" + "".join(
            f"\n  {line}" for line in _traceback(self, record)
        )


class JsonFormatter(logging.Formatter):
    """One JSON object for each event."""

    def format(self, record: logging.LogRecord) -> str:
        """Make the object."""
        document = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage()[:LONGEST_FIELD],
            **{key: _json_value(value) for key, value in _fields(record).items()},
        }
        if traceback := _traceback(self, record):
            document["traceback"] = "\n".join(traceback)
        return json.dumps(document)


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = getattr(record, "fields", {})
    return fields


def _time(record: logging.LogRecord) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{whole}.{int(record.msecs):03d}Z"


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> list[str]:
    """Return the lines of the traceback, the last of which may quote a client."""
    if not record.exc_info:
        return []
    told = formatter.formatException(record.exc_info)
    if len(told) > LONGEST_TRACEBACK:
        half = LONGEST_TRACEBACK // 2
        told = f"{told[:half]}\n...\n{told[-half:]}"
    # Keep the indent; escape terminal control characters.
    return [
        "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line) for line in told.split("\n")
    ]


def _word(value: object) -> str:
    text = printable(value, LONGEST_FIELD)
    return f'"{text}"' if " " in text or not text else text


def _json_value(value: object) -> object:
    plain = value is None or isinstance(value, bool | int | float)
    return value if plain else str(value)[:LONGEST_FIELD]
