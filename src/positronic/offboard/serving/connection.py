"""Session protocol over one WebSocket: binary msgpack maps in both directions."""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from positronic.errors import SessionError
from positronic.offboard import wire
from positronic.offboard.serving.channel import REFUSED, Answer, ClientGone
from positronic.offboard.wire import fold

ENVELOPE = {"request_id", "observation"}
# Time for clients to read why they were refused. Positronic 0.2.1 sets a time-out on its socket
# before it reads, and fails with "bad file descriptor" where that is closed already.
READ_S = 0.25
# RFC 6455 leaves 123 bytes for the reason of a close frame.
MAX_REASON = 123


class WebSocketChannel:
    """One client."""

    def __init__(self, websocket: WebSocket) -> None:
        """Wrap ``websocket``, which is accepted already."""
        self._websocket = websocket
        address = websocket.client
        self.client = f"{address.host}:{address.port}" if address else "unknown"

    async def status(self, status: str, message: str) -> None:
        """Send a status frame."""
        await self.send(wire.pack({"status": status, "message": message}))

    async def ready(self, meta: Mapping[str, Any]) -> None:
        """Send the ready frame."""
        await self.send(wire.pack({"status": "ready", "meta": meta}))

    async def receive(self) -> "FrameRequest | None":
        """Wait for the next frame."""
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            return None
        return FrameRequest(message.get("bytes"))

    async def send(self, reply: bytes) -> None:
        """Send one frame."""
        try:
            await self._websocket.send_bytes(reply)
        except WebSocketDisconnect as error:
            raise ClientGone from error

    async def refuse(self, error: str, code: int) -> None:
        """Send an error frame and close."""
        await self.send(wire.pack({"status": "error", "error": error}))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READ_S):
                await self._websocket.receive()
        reason = error.split(":")[0].split(" in ")[0] if code == REFUSED else error.split(";")[0]
        await self.close(code, reason)

    async def close(self, code: int, reason: str) -> None:
        """Close; the reason is cut at the protocol's limit."""
        short = reason.encode()[:MAX_REASON].decode(errors="ignore")
        try:
            await self._websocket.close(code, short)
        except (WebSocketDisconnect, RuntimeError) as error:
            raise ClientGone from error


class FrameRequest:
    """One frame: an observation, alone or in an envelope with a request id."""

    def __init__(self, data: bytes | None) -> None:
        """Wrap the bytes of a binary frame; None for a text frame."""
        self._data = data
        self._enveloped = False
        self._id: Any = None

    def decode(self) -> Mapping[str, Any]:
        """Return the observation.

        Raises:
            SessionError: The frame holds no observation.
        """
        if self._data is None:
            raise SessionError("expected a binary frame with a msgpack map, got text")
        obs = self._unwrap(wire.unpack(self._data))
        if not isinstance(obs, dict):
            raise SessionError(f"expected a map of observations, got a {type(obs).__name__}")
        strange = [key for key in obs if not isinstance(key, str)]
        if strange:
            raise SessionError(
                f"the keys of an observation are strings, got {wire.quoted(strange[0])}"
            )
        return obs

    def encode(self, answer: Answer) -> bytes:
        """Return the reply: in an envelope if the request was in one, else in the public format."""
        outcome: dict[str, Any] = (
            {"error": answer.error} if answer.reason else {"result": answer.result}
        )
        if not self._enveloped and answer.reason and self._data is not None:
            self._peek(self._data)
        if not self._enveloped:
            return wire.pack(outcome)
        if answer.result is not None and (columns := fold(answer.result)) is not None:
            outcome = {"chunk": {"count": len(answer.result), "columns": columns}}
        reply = {"request_id": self._id, **outcome}
        if answer.reason:
            reply["code"] = answer.reason.value
        if answer.retry_after_ms is not None:
            reply["retry_after_ms"] = answer.retry_after_ms
        if answer.timing is not None:
            timing = answer.timing
            reply["timing"] = {name: getattr(timing, name) for name in timing.__slots__}
        return wire.pack(reply)

    def _unwrap(self, message: Any) -> Any:
        if not (isinstance(message, dict) and message.keys() == ENVELOPE):
            return message
        self._enveloped = True
        number = message["request_id"]
        if type(number) is not int:
            raise SessionError(f"a request_id is an integer, got {wire.quoted(number)}")
        self._id = number
        return message["observation"]

    def _peek(self, data: bytes) -> None:
        """Read the request id of a frame that was not decoded, or whose images are damaged."""
        self._id = wire.request_id(data)
        self._enveloped = self._id is not None
