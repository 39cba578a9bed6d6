"""Channel interface and answers: what a session hands to its connection, whatever its protocol."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from foundation.text import printable
from positronic.errors import Busy, PositronicError, SessionError
from positronic.policy.base import Action

MAX_ERROR = 1000


class Reason(StrEnum):
    """Why something failed: the ``code`` of an error reply and the label of the counter."""

    BUSY = "busy"
    """Too many requests or sessions; later it may work."""
    INVALID = "invalid"
    """The observation, or the checkpoint asked for, is none that is served."""
    TIMEOUT = "timeout"
    INTERNAL = "internal"
    MALFORMED = "malformed"
    """A frame that is no request."""
    RATE = "rate"
    """This session asks too often."""
    UNAUTHORISED = "unauthorised"
    LOAD_FAILED = "load_failed"
    DISCONNECTED = "disconnected"
    """The client left while a reply was due."""


class Malformed(SessionError):
    """A frame that is no request; the session can go on."""


class TooFast(SessionError):
    """A session asks more often than ``rate_limit``."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        """Say so, and after how many seconds the next request is due."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of one answer went, in milliseconds, and how many were predicted together."""

    pre_ms: float
    queue_ms: float
    infer_ms: float
    post_ms: float
    batch_size: int
    """0 where the session still had actions and nothing was predicted."""

    @property
    def cost_ms(self) -> float:
        """All of it."""
        return self.pre_ms + self.queue_ms + self.infer_ms + self.post_ms


@dataclass(frozen=True, slots=True)
class Answer:
    """Either ``result`` and ``timing``, or ``error`` and ``reason``."""

    result: list[Action] | None = None
    timing: Timing | None = None
    error: str = ""
    reason: Reason | None = None
    retry_after_ms: int | None = None


def failure(error: Exception, cost_ms: float | None = None) -> Answer:
    """Say what went wrong, in words that hold nothing of this machine.

    Args:
        error: What was raised.
        cost_ms: What an answer takes at present, after which a busy server is worth another try.
    """
    match error:
        case Busy():
            return Answer(
                error=str(error), reason=Reason.BUSY, retry_after_ms=int(cost_ms or 10) + 1
            )
        case TooFast():
            wait_ms = int(error.retry_after_s * 1000) + 1
            return Answer(error=str(error), reason=Reason.RATE, retry_after_ms=wait_ms)
        case Malformed():
            return Answer(error=printable(error, MAX_ERROR), reason=Reason.MALFORMED)
        case PositronicError():
            # It may quote the keys of an observation, whatever they are.
            return Answer(error=printable(error, MAX_ERROR), reason=Reason.INVALID)
    kind = type(error).__name__
    return Answer(error=f"internal error ({kind}); see the server's log", reason=Reason.INTERNAL)


# Close codes of RFC 6455.
GOING_AWAY, REFUSED, INTERNAL_ERROR, TRY_AGAIN_LATER = 1001, 1008, 1011, 1013


class ClientGone(Exception):
    """The client has left, or takes nothing of what is sent to it."""


class Request(Protocol):
    """One frame of the client; its methods are called in threads, since images take a while."""

    def decode(self) -> Mapping[str, Any]:
        """Return the observation; SessionError says why the frame is no request."""

    def encode(self, answer: Answer) -> bytes:
        """Make the reply; also called for frames that could not be decoded."""


class Channel(Protocol):
    """A connection with one client. Whatever waits for the client may raise `ClientGone`."""

    client: str
    """Its address, for people."""

    async def status(self, status: str, message: str) -> None:
        """Tell a client that waits: ``status`` is ``loading`` or ``waiting``."""

    async def ready(self, meta: Mapping[str, Any]) -> None:
        """Say that observations can come."""

    async def receive(self) -> Request | None:
        """Wait for the next frame; None when the client has said goodbye."""

    async def send(self, reply: bytes) -> None:
        """Send what `Request.encode` made."""

    async def refuse(self, error: str, code: int) -> None:
        """Say why there is no session, and close with ``code``."""

    async def close(self, code: int, reason: str) -> None:
        """End the session."""
