"""Limits of a server: options, memory, request rate, connections and unfinished messages."""

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
    """Limits of one server. 0 means no limit where the field says so."""

    max_sessions: int = 64
    """Concurrent sessions, including those that still wait for their checkpoint."""
    idle_timeout_s: float = 3600.0
    """Time after which an idle session is closed; 0: never."""
    request_timeout_s: float = 60.0
    """A request that takes longer is answered with ``timeout``."""
    max_message_bytes: int = 16 * MIB
    """A larger frame ends its session."""
    rate_limit: float = 200.0
    """Requests per second of one session, and the size of a burst; 0: no limit."""
    drain_timeout_s: float = 30.0
    """How long open sessions may go on after SIGTERM."""
    token: str | None = None
    """Token that clients must send; None for none."""
    send_timeout_s: float = 20.0
    """Time after which a client that does not read what was sent is dropped."""
    message_timeout_s: float = 20.0
    """How long a message may take from its first byte to its last."""
    ping_interval_s: float = 20.0
    """Interval of pings, which detect clients that have vanished."""
    ping_timeout_s: float = 20.0
    """How long a pong may take before the session is dropped."""
    handshake_timeout_s: float = 10.0
    """How long a connection may take to send its request, and to close."""
    docs: bool = True
    """Whether to serve ``/docs`` and ``/openapi.json``."""


# Memory limit of a container, in version 2 of control groups and in version 1.
CGROUP_FILES = ("memory.max", "memory/memory.limit_in_bytes")


def memory_limit(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes of memory that this process may use: the machine's or its cgroup's."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in CGROUP_FILES:
        try:
            limits.append(int((cgroups / name).read_text()))
        except (OSError, ValueError):
            continue  # the other version, or "max"
    return min(limits)


class RateLimit:
    """Rate limiter: ``rate`` requests a second, and bursts of as many.

    The generic cell rate algorithm: its only state is the time at which all requests so far would
    be due at an even pace.
    """

    def __init__(self, rate: float) -> None:
        """Allow ``rate`` requests a second; 0 for no limit."""
        self._rate = rate
        self._due = 0.0

    def __call__(self) -> None:
        """Count one request.

        Raises:
            TooFast: The rate is exceeded; this request does not count.
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


# Connections beside the sessions: those of operators, and of refused clients.
OTHER_CONNECTIONS = 256
# File descriptors that the rest of the process needs: models, buckets, logs.
RESERVED_FILES = 128
# Well-behaved clients have few messages in transit at once, and none of the largest.
UNFINISHED_MESSAGES = 8


class Connections:
    """Bounds the connections and the bytes of incomplete messages.

    If there are too many, the one that has waited longest is dropped: a well-behaved client sends
    its request within a round trip, and a message within a fraction of a second.
    """

    def __init__(self, options: ServerOptions) -> None:
        """Derive the bounds from ``options``."""
        self.most = most_connections(options.max_sessions, _soft_file_limit())
        self.most_bytes = UNFINISHED_MESSAGES * options.max_message_bytes
        self._open: set[object] = set()
        self._silent: dict[object, Callable[[], None]] = {}
        self._unfinished: dict[object, tuple[int, Callable[[], None]]] = {}
        self._bytes = 0

    def enter(self, who: object, drop: Callable[[], None]) -> bool:
        """Count a connection; False if there is no room for it.

        Args:
            who: The connection.
            drop: Drops it, as long as it has sent no request.
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
        """Record that the connection has sent its request."""
        self._silent.pop(who, None)

    def may_go(self, who: object, drop: Callable[[], None]) -> None:
        """Record that the connection is closing and may be dropped."""
        if who in self._open:
            self._silent[who] = drop

    def handed_over(self, before: object, after: object) -> None:
        """Replace a connection that has become a WebSocket."""
        self._silent.pop(before, None)
        if before in self._open:
            self._open.discard(before)
            self._open.add(after)

    def leave(self, who: object) -> None:
        """Remove a closed connection."""
        self._open.discard(who)
        self._silent.pop(who, None)
        self.holds(who, 0, lambda: None)

    def holds(self, who: object, held: int, drop: Callable[[], None]) -> None:
        """Record the bytes of an incomplete message; 0 if there is none.

        Args:
            who: The connection.
            held: The bytes.
            drop: Drops the connection, if all of them together hold too many bytes.
        """
        self._bytes -= self._unfinished.get(who, (0, drop))[0]
        if held:
            # A dict keeps a key's place: the message begun first stays first.
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
    """Return the bound of concurrent connections, given the limit of open files."""
    return min(max_sessions + OTHER_CONNECTIONS, max(files - RESERVED_FILES, files // 2))


def _soft_file_limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft
