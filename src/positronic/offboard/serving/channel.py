"""What a session needs of the connection that it runs on, whatever that one speaks."""

from collections.abc import Mapping
from typing import Any, Protocol

from positronic.offboard.serving.answer import Answer

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
