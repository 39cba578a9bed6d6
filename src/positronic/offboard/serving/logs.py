"""What the server writes down: one line for each event, for people or as JSON."""

import json
import logging
import sys
import time
from collections.abc import Mapping
from typing import Any, Literal

from positronic.errors import UsageError

type LogFormat = Literal["text", "json"]
FORMATS = ("text", "json")


def log(
    logger: logging.Logger,
    event: str,
    *,
    level: int = logging.INFO,
    exc_info: bool = False,
    **fields: object,
) -> None:
    """Write down one event with what it is about, such as ``session=s12``."""
    if logger.isEnabledFor(level):
        logger.log(level, event, exc_info=exc_info, extra={"fields": fields})


def configure(log_format: str) -> None:
    """Send what this package logs to stderr; of others only warnings.

    Raises:
        UsageError: There is no such format.
    """
    if log_format not in FORMATS:
        raise UsageError(f"--log_format={log_format} is no format; choose text or json")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("positronic").setLevel(logging.INFO)


class TextFormatter(logging.Formatter):
    """``time level event key=value ...``; what a client sent cannot begin a line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """Make the line."""
        fields = "".join(f" {key}={_word(value)}" for key, value in _fields(record).items())
        line = f"{_time(record)} {record.levelname.lower()} {_printable(record.getMessage())}"
        return line + fields + _traceback(self, record)


class JsonFormatter(logging.Formatter):
    """One JSON object for each event."""

    def format(self, record: logging.LogRecord) -> str:
        """Make the object."""
        document = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **_fields(record),
        }
        if traceback := _traceback(self, record):
            document["traceback"] = traceback.strip()
        return json.dumps(document, default=str)


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = getattr(record, "fields", {})
    return fields


def _time(record: logging.LogRecord) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{whole}.{int(record.msecs):03d}Z"


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return f"\n{formatter.formatException(record.exc_info)}" if record.exc_info else ""


def _word(value: object) -> str:
    text = _printable(str(value))
    return f'"{text}"' if " " in text or not text else text


def _printable(text: str) -> str:
    return text if text.isprintable() else repr(text)[1:-1]
