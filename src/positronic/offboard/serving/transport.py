"""HTTP and WebSocket protocols for uvicorn, with deadlines and bounds for every client.

uvicorn's own protocols wait without limit for a request, for the rest of a message, and for a reply
to be read, and buffer all input. Here every wait has a deadline, every buffer a bound, and a client
that exceeds one gets an error message.

A connection serves one HTTP request, or one WebSocket. The undocumented parts of uvicorn used here
are tested in ``tests/positronic/offboard/serving/test_transport.py``.
"""

import asyncio
import http
import logging
import re
from collections.abc import Callable
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from positronic.offboard.serving.channel import TooFast
from positronic.offboard.serving.limits import Connections, RateLimit, ServerOptions
from positronic.offboard.serving.logs import log

logger = logging.getLogger(__name__)

# Time to answer a close frame, on top of uvicorn's; and to read a refusal.
LINGER_S = 1.0
# Bytes read and discarded from a refused client: closing with unread bytes would reset the
# connection, and the client might not see the reason.
MAX_DISCARDED = 1 << 20
# Bounds of the head of a request. The WebSocket library does not answer lines of more than 8192
# bytes, nor more than 128 of them.
MAX_HEAD, MAX_LINE, MAX_LINES = 16_384, 8_000, 100
# Frames of a WebSocket handled in one turn of the event loop, about 10 µs each.
FRAMES_AT_ONCE = 16
# Small frames (fewer bytes than SMALL_FRAME) that are no request: fragments and control frames.
SMALL_FRAME, SMALL_FRAMES_PER_S = 1024, 100
PROTOCOL_VIOLATED = 1008

_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_HAS_BODY = re.compile(
    rb"\n(?:transfer-encoding[ \t]*:|content-length[ \t]*:(?![ \t]*0+[ \t]*\r?\n))", re.IGNORECASE
)
_CLOSE = (b"connection", b"close")


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """WebSocket that takes one message at a time, with deadlines for sending and reading it."""

    options: ClassVar[ServerOptions]
    shared: ClassVar[Connections]

    _stalled: asyncio.TimerHandle | None = None
    _abort: asyncio.TimerHandle | None = None
    _late: asyncio.TimerHandle | None = None
    _over = False
    _yielding = False
    _discarded = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take over the connection from HTTP."""
        self.close_timeout = self.options.handshake_timeout_s
        self._unread = bytearray()
        self._left = 0  # bytes of the present frame still to come
        self._ends = self._control = False
        self._held = 0  # bytes of the present message that have come
        self._small_frame = RateLimit(SMALL_FRAMES_PER_S)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Receive bytes; complete frames are handled a few at a time, and one message at a time."""
        if self._over:
            self._discarded += len(data)
            if self._discarded > MAX_DISCARDED:
                self.transport.abort()
            return
        if not self.handshake_initiated:
            super().data_received(data)  # the head of the request, which HTTP has kept
            return
        if not self._unread and self._left >= len(data):
            self._take(data)  # the middle of a large message
            self._watch()
        else:
            self._unread += data
        self._proceed()

    async def receive(self) -> Any:
        """Return the application's next message, and process the frames after it."""
        message = await super().receive()
        self._proceed()
        return message

    async def send(self, message: Any) -> None:
        """Send for the application, if the client has not been refused."""
        if self._over:
            raise ClientDisconnected
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True  # by a refusal, which uvicorn does not count as one
        if self._unread and not self.read_paused and self.writable.is_set():
            # It has been accepted, or a close has replaced a waiting message.
            self.transport.resume_reading()
            self._proceed()

    def pause_writing(self) -> None:
        """Wait for the client to read what was sent, up to the deadline.

        Nothing is read meanwhile: each ping of the client would add a pong to the buffer.
        """
        super().pause_writing()
        self.transport.pause_reading()
        self._stalled = self.loop.call_later(self.options.send_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Resume reading, unless a message waits to be handled."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
        if not self.read_paused:
            self.transport.resume_reading()
        self._proceed()

    def keepalive_timeout(self) -> None:
        """Drop a client that answers no pings; unsent data would keep it open for ever."""
        if self.read_paused:
            # Its pong may stand behind a request that waits for the one before it.
            self.pong_timer = self.pending_ping_payload = None
            self.schedule_ping()
            return
        super().keepalive_timeout()
        self._abort_in(LINGER_S)

    def handle_parser_exception(self) -> None:
        """Close after a protocol error that the WebSocket library found."""
        close = self.conn.close_sent
        self._end(close.code if close else PROTOCOL_VIOLATED, close.reason if close else "")

    def shutdown(self) -> None:
        """End with the server."""
        if self.handshake_initiated:
            super().shutdown()
        else:
            self.transport.close()
        self._abort_in(LINGER_S)

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """Wait for the client to close, after the session is over."""
        super().on_task_complete(task)
        self._abort_in(self.close_timeout + LINGER_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up after the connection is closed."""
        super().connection_lost(exc)
        self._over = True
        self.shared.leave(self)
        self._unread.clear()
        for timer in (self._stalled, self._abort, self._late):
            if timer is not None:
                timer.cancel()

    def _proceed(self) -> None:
        """Handle buffered frames, until there is a message for the application."""
        if self._yielding or not self._unread:
            return
        if not self.handshake_complete:
            self.transport.pause_reading()  # the client sends before it has been accepted
            return
        for _ in range(FRAMES_AT_ONCE):
            if self.read_paused or self._over or not self.writable.is_set():
                break
            if not self._left and not self._begin_frame():
                break
            piece = bytes(self._unread[: self._left])
            del self._unread[: self._left]
            self._take(piece)
            if not self._unread:
                break
        else:
            self._yielding = True
            self.transport.pause_reading()
            self.loop.call_soon(self._go_on)
        self._watch()

    def _go_on(self) -> None:
        self._yielding = False
        if not self._over and self.writable.is_set() and not self.read_paused:
            self.transport.resume_reading()
            self._proceed()

    def _begin_frame(self) -> bool:
        """Parse the header of the next frame; False if it is incomplete or exceeds the rate."""
        header = frame_header(self._unread)
        if header is None:
            return False
        opcode, final, before, payload = header
        self._left = before + payload
        self._control = bool(opcode & 8)
        self._ends = final and not self._control
        if payload < SMALL_FRAME and (not self._ends or self.close_sent):
            try:
                self._small_frame()
            except TooFast:
                self._refuse(f"more than {SMALL_FRAMES_PER_S} small fragments or pings a second")
                return False
        return True

    def _take(self, piece: bytes) -> None:
        """Pass the bytes of one frame, or some of them, to the WebSocket library."""
        self._left -= len(piece)
        if not self._control:
            self._held = 0 if self._ends and not self._left else self._held + len(piece)
        super().data_received(piece)

    def _watch(self) -> None:
        """Enforce the deadline and the shared memory bound of an incomplete message."""
        if self._over:
            return
        if self._held and self._late is None:
            seconds = self.options.message_timeout_s
            why = f"a message took more than {seconds:g} s to come"
            self._late = self.loop.call_later(seconds, self._refuse, why)
        elif not self._held and self._late is not None:
            self._late.cancel()
            self._late = None
        full = "the server holds too many unfinished messages; send whole ones"
        self.shared.holds(self, self._held, lambda: self._refuse(full))

    def _refuse(self, why: str) -> None:
        """Close with a reason that the client is at fault for."""
        if not (self._over or self.close_sent or self.transport.is_closing()):
            client = "{}:{}".format(*self.client) if self.client else "unknown"
            log(logger, "closed a connection", level=logging.WARNING, client=client, why=why)
            self.conn.fail(PROTOCOL_VIOLATED, why)
            self._end(PROTOCOL_VIOLATED, why)
        elif not self._over:
            self.transport.abort()

    def _end(self, code: int, reason: str) -> None:
        """Send the close frame, and discard further input, so that the client can read it."""
        self._over = self.close_sent = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self._unread.clear()
        self.frames = []
        self.stop_keepalive()
        self.shared.holds(self, 0, lambda: None)
        self.shared.may_go(self, self.transport.abort)
        for timer in (self.close_timer, self._late):
            if timer is not None:
                timer.cancel()
        if self.transport.is_closing():
            return
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.transport.write_eof()
        self.transport.resume_reading()
        # Otherwise uvicorn would close at once when the application has ended.
        self.close_timer = self.loop.call_later(LINGER_S, self.transport.abort)

    def _abort_in(self, seconds: float) -> None:
        if self._abort is not None:
            self._abort.cancel()
        if not self.disconnected:
            self._abort = self.loop.call_later(seconds, self.transport.abort)


class HttpProtocol(H11Protocol):
    """HTTP protocol for one request without a body, with deadlines for request and response."""

    options: ClassVar[ServerOptions]
    shared: ClassVar[Connections]

    _deadline: asyncio.TimerHandle | None = None
    _has_asked = False
    _handed_over = False
    _discarded = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request, up to the deadline."""
        self._head = bytearray()
        super().connection_made(transport)
        seconds = self.options.handshake_timeout_s
        self._within(seconds, self._refuse, 408, f"the request did not come within {seconds:g} s")
        if not self.shared.enter(self, self._make_room):
            self._has_asked = True
            self._make_room()

    def data_received(self, data: bytes) -> None:
        """Receive the head of the request; further bytes are discarded."""
        if self._has_asked:
            self._discarded += len(data)
            if self._discarded > MAX_DISCARDED:
                self.transport.abort()
            return
        start = max(0, len(self._head) - 3)
        self._head += data
        end = _END_OF_HEAD.search(self._head, start, MAX_HEAD)
        if end is not None:
            self._ask(bytes(self._head[: end.end()]), bytes(self._head[end.end() :]))
        elif len(self._head) >= MAX_HEAD:
            self._refuse(431, f"the head of the request has more than {MAX_HEAD} bytes")

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand over the connection to the WebSocket protocol."""
        super().handle_websocket_upgrade(event)
        websocket = self.transport.get_protocol()
        if isinstance(websocket, WebSocketProtocol):
            if websocket.handshake_initiated:
                self._handed_over = True
                self._stop_waiting()
                self.shared.handed_over(self, websocket)
                return
            # The WebSocket library could not parse the head, and sends nothing to the client.
            self.connections.discard(websocket)
            self.connections.add(self)
            self.transport.set_protocol(self)
            self._refuse(400, "the head of the request is not a WebSocket handshake")

    def on_response_complete(self) -> None:
        """Wait for the client to read the response, up to the deadline."""
        super().on_response_complete()
        self.shared.may_go(self, self.transport.abort)
        self._within(self.options.send_timeout_s, self.transport.abort)

    def pause_writing(self) -> None:
        """Wait for the client to read the response, up to the deadline."""
        super().pause_writing()
        self._within(self.options.send_timeout_s, self.transport.abort)

    def shutdown(self) -> None:
        """End with the server; a response in progress is still sent."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
            self._within(LINGER_S, self.transport.abort)
        else:
            self.cycle.keep_alive = False

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up after the connection is closed."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self.shared.leave(self)
        self._stop_waiting()

    def _ask(self, head: bytes, rest: bytes) -> None:
        """Pass the request to uvicorn with ``Connection: close``: one request per connection."""
        self._has_asked = True
        self._head.clear()
        self.shared.asked(self)
        lines = head.split(b"\n")
        if len(lines) > MAX_LINES:
            self._refuse(431, f"the request has more than {MAX_LINES} headers")
        elif max(map(len, lines)) > MAX_LINE:
            self._refuse(431, f"a header of the request has more than {MAX_LINE} bytes")
        elif _HAS_BODY.search(head):
            self._refuse(413, "no request here has a body")
        else:
            self._within(self.options.request_timeout_s, self.transport.abort)
            super().data_received(head)
            cycle: object = self.cycle  # which uvicorn declares to be never None
            if cycle is not None:
                self.headers.append(_CLOSE)  # as if the client had sent it; applied by the response
            elif self._handed_over:
                websocket = self.transport.get_protocol()
                if rest and isinstance(websocket, WebSocketProtocol):
                    # The client sent frames early; what follows other requests is discarded.
                    websocket.data_received(rest)
            else:
                self._within(LINGER_S, self.transport.abort)  # refused, by uvicorn or by super()

    def _refuse(self, status: int, why: str) -> None:
        """Send an error response, and discard further input, so that the client can read it."""
        self._has_asked = True
        self._head.clear()
        if self.transport.is_closing():
            return
        self.shared.may_go(self, self.transport.abort)
        client = "{}:{}".format(*self.client) if self.client else "unknown"
        log(logger, "refused a request", level=logging.WARNING, client=client, why=why)
        self.transport.write(_answer(status, why))
        self.transport.write_eof()
        self._within(LINGER_S, self.transport.abort)

    def _make_room(self) -> None:
        """Refuse with 503 at once, to make room for other connections."""
        self._has_asked = True
        if not self.transport.is_closing():
            self.transport.write(_answer(503, "the server has too many connections"))
            self.transport.close()
            self._within(LINGER_S, self.transport.abort)

    def _within(self, seconds: float, then: Callable[..., object], *words: object) -> None:
        self._stop_waiting()
        self._deadline = self.loop.call_later(seconds, then, *words)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()


def frame_header(data: bytearray) -> tuple[int, bool, int, int] | None:
    """Parse the header of a WebSocket frame (RFC 6455, 5.2); None if it is incomplete.

    Returns:
        The opcode, whether the frame is the last of its message, and the bytes of the header and
        of the payload.
    """
    if len(data) < 2:
        return None
    size = data[1] & 127
    extended = {126: 2, 127: 8}.get(size, 0)
    if len(data) < 2 + extended:
        return None
    if extended:
        size = int.from_bytes(data[2 : 2 + extended])
    mask = 4 if data[1] & 128 else 0
    return data[0] & 15, bool(data[0] & 128), 2 + extended + mask, size


def protocols(
    options: ServerOptions, shared: Connections
) -> tuple[type[HttpProtocol], type[WebSocketProtocol]]:
    """Return the two protocol classes with the limits of ``options``; uvicorn creates them."""
    limits = {"options": options, "shared": shared}
    return (
        type("Http", (HttpProtocol,), limits),
        type("WebSocket", (WebSocketProtocol,), limits),
    )


def _answer(status: int, why: str) -> bytes:
    body = f"{why}\n".encode()
    phrase = http.HTTPStatus(status).phrase
    return (
        f"HTTP/1.1 {status} {phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    ).encode() + body
