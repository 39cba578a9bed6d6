"""Being told to end: at once, or when it suits.

By SIGTERM (``docker stop``), SIGINT (Ctrl-C), or SIGHUP (the terminal is closed, ssh has dropped).
"""

import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# `docker compose run` without a terminal hands a Ctrl-C on twice, within milliseconds.
TWICE_S = 0.5


class Stopped(SystemExit):
    """The process was told to end; the exit status is 128 and the signal, as shells have it."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signal = signal.Signals(signum)


def stop_signals() -> tuple[signal.Signals, ...]:
    """Those that tell this process to end; not SIGHUP where it is ignored, as ``nohup`` asks."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return tuple(signum for signum in SIGNALS if signum != signal.SIGHUP)
    return SIGNALS


def leave_lost_terminal() -> None:
    """Lead standard streams whose terminal is gone nowhere.

    Otherwise the next line of progress would end, by an error, what SIGHUP lets come to its end.
    """
    for descriptor in (1, 2):
        try:
            os.write(descriptor, b"")
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)


class StopSignals:
    """What SIGTERM, SIGINT and SIGHUP do in a context, in the main thread of a process.

    They raise :class:`Stopped` at once, or, while ``deferred`` is set, are noted down in
    ``received`` for whoever does the work to look at. A second Ctrl-C then ends the process on the
    spot, unless it comes within ``TWICE_S`` seconds; another signal changes nothing.
    """

    def __init__(self) -> None:
        self.deferred = False
        self.received: signal.Signals | None = None
        self._received_at = 0.0
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._former = {signum: signal.getsignal(signum) for signum in stop_signals()}
        self.install()
        return self

    def __exit__(self, *exc: object) -> None:
        for signum, handler in self._former.items():
            _handle(signum, handler)

    def install(self) -> None:
        """Take the signals, also from somebody who took them later."""
        for signum in stop_signals():
            _handle(signum, self._on_signal)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        leave_lost_terminal()
        if not self.deferred:
            self.received = signal.Signals(signum)
            raise Stopped(signum)
        if self.received is None:
            self.received, self._received_at = signal.Signals(signum), time.monotonic()
            again = ", again to end at once" if signum == signal.SIGINT else ""
            _say(f"{self.received.name}: ending after this step{again}")
        elif signum == signal.SIGINT and not self._is_the_same(signum):
            # Whatever is being written meanwhile survives a SIGKILL, so it survives this as well.
            _say("SIGINT again: ending at once")
            os._exit(128 + signum)

    def _is_the_same(self, signum: int) -> bool:
        return signum == self.received and time.monotonic() - self._received_at < TWICE_S


def _handle(signum: signal.Signals, handler: Any) -> None:
    # Python lets no other thread do that. None stands for a handler that is not Python's.
    if threading.current_thread() is threading.main_thread() and handler is not None:
        signal.signal(signum, handler)


def _say(line: str) -> None:
    # Not print, which may be what was interrupted, and is not to be entered twice.
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"\n{line}\n".encode())
