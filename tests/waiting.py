"""Waiting with an end: every wait of a test has a deadline, and says what it waited for."""

import select
import time
from collections.abc import Callable
from typing import IO

SECONDS = 120.0


def until[T](
    condition: Callable[[], T], what: str | Callable[[], str], seconds: float = SECONDS
) -> T:
    """Return the first true value of ``condition``, asked every 20 ms.

    Args:
        condition: What is to become true.
        what: What is waited for; a function where it has to be looked up at the end.
        seconds: How long.

    Raises:
        AssertionError: it did not happen in time; says ``what``.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            told = what if isinstance(what, str) else what()
            raise AssertionError(f"waited {seconds:g} s for {told}")
        time.sleep(0.02)
    return value


def line_of(stream: IO[str] | None, what: str, seconds: float = SECONDS) -> str:
    """Read the next line of a process's output, empty at its end; as :func:`until`.

    Only for a stream of which nothing was read ahead: a process that prints a line and waits.
    """
    assert stream is not None, f"no pipe for {what}"
    until(lambda: select.select([stream], [], [], 0)[0], what, seconds)
    return stream.readline()
