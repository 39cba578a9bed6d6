"""Waiting with an end: every wait of a test has a deadline, and says what it waited for."""

import threading
import time
from collections.abc import Callable, Iterable
from multiprocessing.process import BaseProcess
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


def line_of[Text: (str, bytes)](
    stream: IO[Text] | None, what: str, seconds: float = SECONDS
) -> Text:
    """Read the next line of a process's output, empty at its end; as :func:`until`."""
    assert stream is not None, f"there is no pipe for {what}"
    lines: list[Text] = []
    # A thread, since the line may be in the buffer already, where no poll of the pipe shows it.
    thread = threading.Thread(target=lambda: lines.append(stream.readline()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert lines, f"waited {seconds:g} s for {what}"
    return lines[0]


def join(
    threads: Iterable[threading.Thread | BaseProcess], what: str, seconds: float = SECONDS
) -> None:
    """Wait for the end of threads or processes; as :func:`until`."""
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        assert not thread.is_alive(), f"waited {seconds:g} s for {what}"
