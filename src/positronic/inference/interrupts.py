"""Defer SIGINT, SIGTERM and SIGHUP to safe moments, never while a rollout is being saved."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from foundation.stopping import READER_S, leave_lost_streams, stop_signals


class Interrupts:
    """While active, signals to end set a flag, which :meth:`check` turns into an exception.

    They are Ctrl-C, SIGTERM, and the SIGHUP of a closed terminal.

    Inside ``with allowed():`` they interrupt at once, as they must where a reply is waited for.
    Outside the main thread, where Python delivers no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.pending: int | None = None
        self._allowed = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        """Take the signals over."""
        if threading.current_thread() is threading.main_thread():
            self._previous = {s: signal.signal(s, self._on_signal) for s in stop_signals()}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise KeyboardInterrupt, with its number, if a signal came since the last look."""
        if self.pending is not None:
            number, self.pending = self.pending, None
            raise KeyboardInterrupt(number)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Let a signal interrupt the body at once."""
        self._allowed = True
        try:
            self.check()
            yield
        finally:
            self._allowed = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        leave_lost_streams(READER_S if number == signal.SIGINT else 0.0)
        if self._allowed:
            self._allowed = False
            raise KeyboardInterrupt(number)
        if self.pending is None:
            self.pending = number
