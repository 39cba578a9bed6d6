"""Limits of a server: its options, memory, rate of requests, connections and unfinished bytes."""

import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from positronic.offboard.serving.channel import TooFast

__all__ = ["ServerOptions"]

MIB = 1024 * 1024


@dataclass(frozen=True)
class ServerOptions:
    """Limits of one server. A limit of 0 is none, where the field says so."""

    max_sessions: int = 64
    """Sessions at once, those that still wait for their checkpoint included."""
    idle_timeout_s: float = 3600.0
    """A session that asks for nothing for so long is closed; 0: never."""
    request_timeout_s: float = 60.0
    """A request that takes longer is answered with ``timeout``."""
    max_message_bytes: int = 16 * MIB
    """A larger frame ends its session."""
    rate_limit: float = 200.0
    """Requests per second of one session, and as many at once after a pause; 0: any number."""
    drain_timeout_s: float = 30.0
    """How long open sessions may go on after SIGTERM."""
    token: str | None = None
    """What clients have to know; None lets everybody in."""
    send_timeout_s: float = 20.0
    """A client that has not taken what was sent to it after so long is dropped."""
    message_timeout_s: float = 20.0
    """How long a message may take from its first byte to its last."""
    ping_interval_s: float = 20.0
    """Every session is pinged so often, so that one whose client has vanished is noticed."""
    ping_timeout_s: float = 20.0
    """How long a pong may take before the session is dropped."""
    handshake_timeout_s: float = 10.0
    """How long a connection may take to say what it wants, and to agree to its end."""
    docs: bool = True
    """Whether ``/docs`` and ``/openapi.json`` say what the HTTP endpoints answer."""


# What a container may use, in version 2 of control groups and in version 1.
CGROUP_FILES = ("memory.max", "memory/memory.limit_in_bytes")


def memory_limit(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of memory that this process may use: of the machine, or of its control group."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in CGROUP_FILES:
        try:
            limits.append(int((cgroups / name).read_text()))
        except (OSError, ValueError):
            continue  # the other version, or "max"
    return min(limits)


class RateLimit:
    """Lets ``rate`` requests a second through, and as many at once after a pause.

    The generic cell rate algorithm: one number, the time at which all requests so far would be
    due at an even pace.
    """

    def __init__(self, rate: float) -> None:
        """Allow ``rate`` requests a second; 0 is any number."""
        self._rate = rate
        self._due = 0.0

    def __call__(self) -> None:
        """Count one request.

        Raises:
            TooFast: There were too many; this one does not count.
        """
        if not self._rate:
            return
        now = time.monotonic()
        due = max(self._due, now) + 1 / self._rate
        # A rate below 1/s lets one request through at once, not none.
        wait = due - now - max(1.0, 1 / self._rate)
        if wait > 1e-9:
            raise TooFast(f"more than {self._rate:g} requests a second; ask less often", wait)
        self._due = due


# Beside the sessions: those of operators, and of clients that are turned away.
OTHER_CONNECTIONS = 256
# Files that the rest of the process needs: models, buckets, logs.
RESERVED_FILES = 128
# Honest clients have few messages on their way at once, and none of the largest.
UNFINISHED_MESSAGES = 8


class Connections:
    """Counts connections and the bytes of messages that are not complete.

    Where there are too many, the one that has waited longest goes: who means no harm has asked for
    something within a round trip, and has sent a message within a fraction of a second.
    """

    def __init__(self, options: ServerOptions) -> None:
        """Begin with none."""
        self.most = most_connections(options.max_sessions, _soft_file_limit())
        self.most_bytes = UNFINISHED_MESSAGES * options.max_message_bytes
        self._open: set[object] = set()
        self._silent: dict[object, Callable[[], None]] = {}
        self._unfinished: dict[object, tuple[int, Callable[[], None]]] = {}
        self._bytes = 0

    def enter(self, who: object, drop: Callable[[], None]) -> bool:
        """Count a connection; False where there is no room for it.

        Args:
            who: The connection.
            drop: Ends it, for one that has not asked for anything yet.
        """
        if len(self._open) >= self.most:
            if not self._silent:
                return False
            oldest = next(iter(self._silent))
            self._open.discard(oldest)
            self._silent.pop(oldest)()
        self._open.add(who)
        self._silent[who] = drop
        return True

    def asked(self, who: object) -> None:
        """Remember that the connection has asked for something."""
        self._silent.pop(who, None)

    def may_go(self, who: object, drop: Callable[[], None]) -> None:
        """Remember that the connection only waits for its client to read how it ended."""
        if who in self._open:
            self._silent[who] = drop

    def handed_over(self, before: object, after: object) -> None:
        """Count a connection that has become a WebSocket as the same one."""
        self._silent.pop(before, None)
        if before in self._open:
            self._open.discard(before)
            self._open.add(after)

    def leave(self, who: object) -> None:
        """Forget a connection."""
        self._open.discard(who)
        self._silent.pop(who, None)
        self.holds(who, 0, lambda: None)

    def holds(self, who: object, held: int, drop: Callable[[], None]) -> None:
        """Count the bytes of a message that is not complete; 0 where none is.

        Args:
            who: The connection.
            held: The bytes.
            drop: Ends the connection, if there are too many of all of them together.
        """
        self._bytes -= self._unfinished.get(who, (0, drop))[0]
        if held:
            # A key keeps its place: the message that was begun first stands first.
            self._unfinished[who] = (held, drop)
            self._bytes += held
        else:
            self._unfinished.pop(who, None)
        while self._bytes > self.most_bytes:
            oldest = next(iter(self._unfinished))
            size, drop_oldest = self._unfinished.pop(oldest)
            self._bytes -= size
            drop_oldest()


def most_connections(max_sessions: int, files: int) -> int:
    """Return how many connections there may be at once, of ``files`` that may be open."""
    return min(max_sessions + OTHER_CONNECTIONS, max(files - RESERVED_FILES, files // 2))


def _soft_file_limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft
