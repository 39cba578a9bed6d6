"""Signal handling: end the process at once, or defer the signal until the work allows it.

Signals are SIGTERM (``docker stop``), SIGINT (Ctrl-C), and SIGHUP (terminal closed, ssh dropped).
"""

import os
import select
import signal
import stat
import sys
import threading
import time
from types import FrameType
from typing import Any, NoReturn, Self

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# `docker compose run` without a terminal hands a Ctrl-C on twice, within milliseconds.
TWICE_S = 0.5
# How long a program that reads a pipe may take to end by the same Ctrl-C.
READER_S = 0.2


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


def interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    """Raise KeyboardInterrupt with the signal's number; a handler."""
    leave_lost_streams(READER_S if signum == signal.SIGINT else 0.0)
    raise KeyboardInterrupt(signum)


def interrupt_at_every_signal() -> None:
    """Let SIGTERM and SIGHUP end this process as Ctrl-C does, by :func:`interrupt`.

    By default they end it on the spot, and whatever it would remove at its end stays behind.
    Handlers that are there already stay.
    """
    for signum in stop_signals():
        if signal.getsignal(signum) is signal.SIG_DFL:
            _handle(signum, interrupt)


def leave_lost_streams(wait_s: float = 0.0) -> None:
    """Lead standard streams that nobody reads any more nowhere.

    The terminal may be gone; or Ctrl-C ended the ``tee`` that they go to as well, which takes it a
    moment, for which up to ``wait_s`` seconds are waited. Otherwise the next line would end, by an
    error, what is to come to its end.
    """
    until = time.monotonic() + wait_s
    for descriptor in (1, 2):
        try:
            is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
        except OSError:
            continue  # closed by whoever started this
        watched = select.poll()
        watched.register(descriptor, 0)  # what is told without being asked: an error, a hang-up
        if watched.poll(max(0.0, until - time.monotonic()) * 1000 if is_pipe else 0):
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
        now = time.monotonic()
        if self.received is None:
            leave_lost_streams(READER_S if signum == signal.SIGINT else 0.0)
        if not self.deferred:
            self.received = signal.Signals(signum)
            raise Stopped(signum)
        if self.received is None:
            self.received, self._received_at = signal.Signals(signum), now
            again = ", again to end at once" if signum == signal.SIGINT else ""
            _say(f"{self.received.name}: ending after this step{again}")
        elif signum == signal.SIGINT and not (
            signum == self.received and now - self._received_at < TWICE_S
        ):
            # Whatever is being written meanwhile survives a SIGKILL, so it survives this as well.
            _say("SIGINT again: ending at once")
            os._exit(128 + signum)


def _handle(signum: signal.Signals, handler: Any) -> None:
    # Python lets no other thread do that. None stands for a handler that is not Python's.
    if threading.current_thread() is threading.main_thread() and handler is not None:
        signal.signal(signum, handler)


def _say(line: str) -> None:
    # Not print, which may be what was interrupted, and is not to be entered twice.
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"\n{line}\n".encode())
