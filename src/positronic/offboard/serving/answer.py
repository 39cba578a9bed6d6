"""What a session answers to one observation, before it becomes bytes; and why it could not."""

from dataclasses import dataclass
from enum import StrEnum

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
