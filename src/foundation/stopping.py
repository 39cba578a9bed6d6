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
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, Self

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# `docker compose run` without a terminal forwards a Ctrl-C twice, within milliseconds; terminals,
# `timeout` and impatient people send several in a row.
ECHO_S = 1.0
# How long a program that reads a pipe may take to end by the same Ctrl-C.
READER_S = 0.2


class Stopped(SystemExit):
    """The process was told to end; the exit status is 128 plus the signal, as in shells."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signal = signal.Signals(signum)


def stop_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that end this process; without SIGHUP if ignored, as under ``nohup``."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return tuple(signum for signum in SIGNALS if signum != signal.SIGHUP)
    return SIGNALS


def interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    """Signal handler: raise KeyboardInterrupt with the signal's number."""
    leave_lost_streams(READER_S if signum == signal.SIGINT else 0.0)
    raise KeyboardInterrupt(signum)


def interrupt_at_every_signal() -> None:
    """Let SIGTERM and SIGHUP end this process as Ctrl-C does, by :func:`interrupt`.

    By default they end it at once, without the cleanup at its end. Handlers that are already set
    stay.
    """
    for signum in stop_signals():
        if signal.getsignal(signum) is signal.SIG_DFL:
            _handle(signum, interrupt)


def leave_lost_streams(wait_s: float = 0.0) -> None:
    """Redirect stdout and stderr to the null device once their reader has gone.

    The terminal may be gone, or the same Ctrl-C ended the ``tee`` that reads them, which takes a
    moment: wait up to ``wait_s`` seconds for it. Otherwise the next line printed would raise an
    error in the middle of an orderly end.
    """
    until = time.monotonic() + wait_s
    for descriptor in (1, 2):
        try:
            is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
        except OSError:
            continue  # closed by the parent process
        watched = select.poll()
        watched.register(descriptor, 0)  # errors and hang-ups are always reported
        if watched.poll(max(0.0, until - time.monotonic()) * 1000 if is_pipe else 0):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, descriptor)
            os.close(null)


def ignore_terminal() -> None:
    """Ignore the signals that a terminal sends to every process; the parent handles them."""
    for signum in (signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)


class Received:
    """The first stop signal received; tells a second request from an echo of the first."""

    def __init__(self) -> None:
        self.first: signal.Signals | None = None
        self._at = 0.0

    def repeats(self, signum: int) -> bool:
        """Record a signal, and return whether it is a second, more urgent request.

        An echo, the same signal within ``ECHO_S`` seconds, is not; nor is SIGHUP, of which a closed
        terminal sends several.
        """
        if self.first is None:
            self.first, self._at = signal.Signals(signum), time.monotonic()
            return False
        echo = signum == self.first and time.monotonic() - self._at < ECHO_S
        return signum != signal.SIGHUP and not echo


class _Handlers:
    """Context in which this object handles the stop signals, in the main thread."""

    def __init__(self) -> None:
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._former = {signum: signal.getsignal(signum) for signum in stop_signals()}
        self.install()
        return self

    def __exit__(self, *exc: object) -> None:
        for signum, handler in self._former.items():
            _handle(signum, handler)

    def install(self) -> None:
        """Set the handlers, also over handlers set since."""
        for signum in stop_signals():
            _handle(signum, self._on_signal)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        raise NotImplementedError


class StopSignals(_Handlers):
    """Context in which stop signals raise :class:`Stopped` at once, or are recorded while deferred.

    While ``deferred`` is set, the work polls ``received``. A second Ctrl-C then ends the process at
    once, unless it is an echo of the first; other signals are ignored.
    """

    def __init__(self) -> None:
        super().__init__()
        self.deferred = False
        self._received = Received()

    @property
    def received(self) -> signal.Signals | None:
        """The first signal since the last :meth:`forget`."""
        return self._received.first

    def forget(self) -> None:
        """Reset, as if no signal had been received."""
        self._received = Received()

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        is_first = self.received is None
        if is_first:
            leave_lost_streams(READER_S if signum == signal.SIGINT else 0.0)
        repeats = self._received.repeats(signum)
        if not self.deferred:
            raise Stopped(signum)
        if is_first:
            again = ", again to end at once" if signum == signal.SIGINT else ""
            _say(f"{signal.Signals(signum).name}: ending after this step{again}")
        elif repeats and signum == signal.SIGINT:
            # All files are written so that they survive a SIGKILL, so they survive this as well.
            _say("SIGINT again: ending at once")
            os._exit(128 + signum)


class DeferredInterrupts(_Handlers):
    """Context in which stop signals set a flag, which :meth:`check` turns into KeyboardInterrupt.

    Inside ``with allowed():`` they interrupt at once, as needed while waiting for a reply.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pending: int | None = None
        self._allowed = False

    def check(self) -> None:
        """Raise KeyboardInterrupt with the signal's number if one came since the last check."""
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

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        leave_lost_streams(READER_S if signum == signal.SIGINT else 0.0)
        if self._allowed:
            self._allowed = False
            raise KeyboardInterrupt(signum)
        if self.pending is None:
            self.pending = signum


def _handle(signum: signal.Signals, handler: Any) -> None:
    # Only the main thread may. None stands for a handler that was not set from Python.
    if threading.current_thread() is threading.main_thread() and handler is not None:
        signal.signal(signum, handler)


def _say(line: str) -> None:
    # Not print, which the signal may have interrupted and which is not re-entrant.
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"\n{line}\n".encode())
