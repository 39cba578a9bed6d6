"""What an operator decides about a server, beside what it serves."""

from dataclasses import dataclass

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
