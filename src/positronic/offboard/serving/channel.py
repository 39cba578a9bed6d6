"""Channel interface between a session and its connection, whatever the protocol; and answers."""

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
    """Too many requests or sessions; a retry may succeed."""
    INVALID = "invalid"
    """Invalid observation or unknown checkpoint."""
    TIMEOUT = "timeout"
    INTERNAL = "internal"
    MALFORMED = "malformed"
    """A frame that is not a valid request."""
    RATE = "rate"
    """The session exceeds its rate limit."""
    UNAUTHORISED = "unauthorised"
    LOAD_FAILED = "load_failed"
    DISCONNECTED = "disconnected"
    """The client left while a reply was due."""


class Malformed(SessionError):
    """A frame that is not a valid request; the session can go on."""


class TooFast(SessionError):
    """A session exceeds ``rate_limit``."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        """Raise with the seconds after which the next request is due."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Timing:
    """Time of each step of one answer, in milliseconds, and the batch size."""

    pre_ms: float
    queue_ms: float
    infer_ms: float
    post_ms: float
    batch_size: int
    """0 if the session still had actions of its chunk and nothing was predicted."""

    @property
    def cost_ms(self) -> float:
        """Total time."""
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
    """Return the answer for an error, without details of this machine.

    Args:
        error: What was raised.
        cost_ms: Present time of an answer, the hint for retrying at a busy server.
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
    """The client has left, or does not read what is sent to it."""


class Request(Protocol):
    """One frame of the client; its methods run in threads, since images take a while to decode."""

    def decode(self) -> Mapping[str, Any]:
        """Return the observation; SessionError says why the frame is invalid."""

    def encode(self, answer: Answer) -> bytes:
        """Return the reply; also called for frames that could not be decoded."""


class Channel(Protocol):
    """A connection with one client. Methods that wait for the client may raise `ClientGone`."""

    client: str
    """Its address, for logs."""

    async def status(self, status: str, message: str) -> None:
        """Send a status to a waiting client: ``loading`` or ``waiting``."""

    async def ready(self, meta: Mapping[str, Any]) -> None:
        """Tell the client that the server is ready for observations."""

    async def receive(self) -> Request | None:
        """Wait for the next frame; None when the client has closed."""

    async def send(self, reply: bytes) -> None:
        """Send a reply of `Request.encode`."""

    async def refuse(self, error: str, code: int) -> None:
        """Refuse the session with a reason, and close with ``code``."""

    async def close(self, code: int, reason: str) -> None:
        """End the session."""
