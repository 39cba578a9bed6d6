"""Defer SIGINT, SIGTERM and SIGHUP to safe moments, never while a rollout is being saved."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from foundation.stopping import READER_S, leave_lost_streams, stop_signals


class Interrupts:
    """While active, stop signals set a flag, which :meth:`check` turns into an exception.

    These are SIGINT (Ctrl-C), SIGTERM, and SIGHUP (terminal closed).

    Inside ``with allowed():`` they interrupt at once, for blocking waits. Outside the main thread,
    where Python does not deliver signals, it has no effect.
    """

    def __init__(self) -> None:
        self.pending: int | None = None
        self._allowed = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        """Install the signal handlers."""
        if threading.current_thread() is threading.main_thread():
            self._previous = {s: signal.signal(s, self._on_signal) for s in stop_signals()}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Restore the previous signal handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise KeyboardInterrupt with the signal's number if one arrived since the last check."""
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
