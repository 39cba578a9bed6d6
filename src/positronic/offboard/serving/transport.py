"""Connections that hold no memory for clients that do not read, and no place for silent ones.

uvicorn's own protocols wait for as long as a client likes: with a reply that it does not take, with
a close frame that cannot be flushed, and for a request that never comes.
"""

import asyncio
from typing import ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from positronic.offboard.serving.options import ServerOptions

# For a close frame to be answered, on top of what uvicorn gives it.
LINGER_S = 1.0


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """A WebSocket whose client has to read what it is sent."""

    options: ClassVar[ServerOptions]

    _stalled: asyncio.TimerHandle | None = None
    _abort: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection over from HTTP."""
        self.close_timeout = self.options.handshake_timeout_s
        super().connection_made(transport)

    def pause_writing(self) -> None:
        """Wait for the client to take what it was sent, but not for ever.

        Nothing is read meanwhile: each ping of the client would make a pong to keep.
        """
        super().pause_writing()
        self.transport.pause_reading()
        self._stalled = self.loop.call_later(self.options.send_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Read on, unless a message waits to be handled."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
        if not self.read_paused:
            self.transport.resume_reading()

    def keepalive_timeout(self) -> None:
        """Drop a client that answers no pings; what is still unsent would hold it for ever."""
        if self.read_paused:
            # Its pong may stand behind a request that waits for the one before it.
            self.pong_timer = self.pending_ping_payload = None
            self.schedule_ping()
            return
        super().keepalive_timeout()
        self._abort_in(LINGER_S)

    def shutdown(self) -> None:
        """End with the server."""
        super().shutdown()
        self._abort_in(LINGER_S)

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """The session is over; its client may still say goodbye."""
        super().on_task_complete(task)
        self._abort_in(self.close_timeout + LINGER_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed on both sides."""
        super().connection_lost(exc)
        for timer in (self._stalled, self._abort):
            if timer is not None:
                timer.cancel()

    def _abort_in(self, seconds: float) -> None:
        if self._abort is not None:
            self._abort.cancel()
        if not self.disconnected:
            self._abort = self.loop.call_later(seconds, self.transport.abort)


class HttpProtocol(H11Protocol):
    """HTTP whose client has to ask for something."""

    options: ClassVar[ServerOptions]

    _silence: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request, but not for ever."""
        super().connection_made(transport)
        self._silence = self.loop.call_later(self.options.handshake_timeout_s, self._drop)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        super().connection_lost(exc)
        self._stop_waiting()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection over."""
        self._stop_waiting()
        super().handle_websocket_upgrade(event)

    def _drop(self) -> None:
        if not self.headers:
            self.transport.abort()

    def _stop_waiting(self) -> None:
        if self._silence is not None:
            self._silence.cancel()


def protocols(options: ServerOptions) -> tuple[type[HttpProtocol], type[WebSocketProtocol]]:
    """Make the two classes with the time-outs of ``options``; uvicorn makes their instances."""
    return (
        type("Http", (HttpProtocol,), {"options": options}),
        type("WebSocket", (WebSocketProtocol,), {"options": options}),
    )
