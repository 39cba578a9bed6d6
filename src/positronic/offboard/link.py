"""Client side of the WebSocket connection: opens it and carries one session over it."""

import http
import random
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from typing import Any
from urllib.parse import quote

import websockets.exceptions
from websockets.sync.client import ClientConnection, connect

from foundation.text import printable
from positronic.errors import Busy, ServerGone, SessionError
from positronic.offboard import messages, wire
from positronic.offboard.address import Address
from positronic.offboard.session import SessionMachine, SessionState

StatusCallback = Callable[[str], None]

# A reply is some hundred actions; a ready message may hold statistics.
MAX_REPLY_BYTES = 64 << 20
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
_MEND_TOKEN = "set AUTH_TOKEN, or give --policy.token=..."


# Servers send a status frame every 5 to 10 s while they load.
STATUS_TIMEOUT_S = 30.0
# For the close frame after a refusal, which says whether it is worth trying again.
REFUSAL_S = 1.0
TOO_BIG, TRY_AGAIN_LATER = 1009, 1013
# In one handshake; at one every 5 s that is most of a day.
MAX_STATUSES = 10_000
# Protocol error, unsupported or invalid data, policy violation, message too big.
_OUR_FAULT = frozenset({1002, 1003, 1007, 1008, TOO_BIG})


class Link:
    """Sends observations and waits for their replies, one at a time."""

    def __init__(
        self,
        connection: ClientConnection,
        stack: ExitStack,
        url: str,
        on_status: StatusCallback,
        send_timeout: float,
    ) -> None:
        """Wait until the server is ready.

        Args:
            connection: Just opened.
            stack: Closes the connection.
            url: Address of the server, for messages.
            on_status: Called with each status message of the server before it is ready.
            send_timeout: Seconds after which a server that reads nothing counts as gone.

        Raises:
            Busy: The server has no room for a session.
            SessionError: It refuses, or does not speak the protocol.
        """
        self._connection, self._stack = connection, stack
        self._url, self._on_status = url, on_status
        self.machine = SessionMachine()
        self.meta: dict[str, Any] = {}
        # That of a public server since 0.3, which wants it back with every observation.
        self._session_id: str | None = None
        self._late: set[int] = set()
        with suppress(OSError):  # already closed, which the handshake will report
            connection.socket.settimeout(send_timeout)
        try:
            self._handshake()
        except BaseException:
            self.close()
            raise

    @property
    def numbered(self) -> bool:
        """Whether requests have numbers, so that late replies are recognised."""
        return self.meta.get("request_ids") is True

    @property
    def refused_frame(self) -> bool:
        """Whether the server closed because of what was sent; resending would fail again."""
        return self._connection.close_code in _OUR_FAULT

    def ask(
        self, request: Mapping[str, Any], numbers: Iterator[int], timeout: float
    ) -> dict[Any, Any]:
        """Send one observation and wait for its reply.

        Args:
            request: The observation.
            numbers: Source of request numbers.
            timeout: Seconds to wait.

        Raises:
            SessionError: It cannot be sent, or there was no reply in time. In the second case the
                link is closed if requests have no numbers, because a late reply could be taken for
                that to a later request; it is also closed if the server breaks the protocol.
            ServerGone: The connection ended.
        """
        number = next(numbers) if self.numbered else None
        frame = wire.pack(self._enveloped(request, number))
        deadline = time.monotonic() + timeout
        self.machine.to(SessionState.INFERRING)
        try:
            self._connection.send(frame)
            reply = self._reply_to(number, deadline)
        except TimeoutError as error:
            if number is None:
                self.close()
            else:
                self._late.add(number)
                self.machine.to(SessionState.READY)
            raise SessionError(
                f"{self._url} did not answer within {timeout:g} s while a reply was due"
            ) from error
        except websockets.exceptions.ConnectionClosed as error:
            lost = self._gone(error, "a reply was due", len(frame))
            self.close()
            raise lost from error
        except BaseException:
            # A reply still to come would be taken for that to the next request.
            self.close()
            raise
        self.machine.to(SessionState.READY)
        return reply

    def close(self) -> None:
        """End the session. From another thread it ends the wait for a reply as well."""
        self.machine.to(SessionState.CLOSED)
        self._stack.close()

    def _enveloped(self, request: Mapping[str, Any], number: int | None) -> Mapping[str, Any]:
        if number is not None:
            return {"request_id": number, "observation": request}
        if self._session_id is not None:
            return {"session_id": self._session_id, "observation": request}
        return request

    def _reply_to(self, number: int | None, deadline: float) -> dict[Any, Any]:
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError  # the server may send status frames for ever
            reply = self._receive(left)
            if reply.keys() >= {"status", "message"}:
                # Some public servers send a status while a request is queued.
                self._on_status(messages.error(reply["message"]))
                continue
            if number is None:
                return reply
            got = reply.get("request_id")
            if got == number:
                return reply
            if type(got) is not int or got not in self._late:
                raise SessionError(
                    f"{self._url} answered request {wire.quoted(got)}, expected {number}"
                )
            self._late.remove(got)

    def _handshake(self) -> None:
        for _ in range(MAX_STATUSES):
            frame = self._greeting()
            said = frame.get("status")
            status = said if isinstance(said, str) else None
            if status == "ready":
                self.machine.to(SessionState.READY)
                from positronic.offboard import ready

                self._session_id = ready.session_id(frame, self._url)
                self.meta = ready.meta(mapping(frame.get("meta")), self._url)
                return
            if status == "error" or "error" in frame:
                message = f"{self._url} refused: {messages.error(frame.get('error'))}"
                raise (Busy if self._is_busy() else SessionError)(message)
            if status is None:
                raise SessionError(f"{self._url} does not speak the session protocol")
            self.machine.to(SessionState.LOADING)
            self._on_status(messages.error(frame.get("message") or status))
        raise SessionError(f"{self._url} says again and again that it gets ready")

    def _greeting(self) -> dict[Any, Any]:
        moment = "the server was getting ready"
        try:
            return self._receive(STATUS_TIMEOUT_S)
        except TimeoutError as error:
            raise SessionError(
                f"{self._url} did not answer within {STATUS_TIMEOUT_S:g} s while {moment}"
            ) from error
        except websockets.exceptions.ConnectionClosed as error:
            raise self._gone(error, moment) from error

    def _is_busy(self) -> bool:
        with suppress(TimeoutError, websockets.exceptions.ConnectionClosed):
            self._connection.recv(timeout=REFUSAL_S)
        return self._connection.close_code == TRY_AGAIN_LATER

    def _receive(self, timeout: float) -> dict[Any, Any]:
        data = self._connection.recv(timeout=max(0.0, timeout))
        if isinstance(data, str):
            raise SessionError(f"{self._url} sent text, expected a binary frame")
        message = wire.unpack(data)
        if not isinstance(message, dict):
            raise SessionError(f"{self._url} sent a {type(message).__name__}, expected a map")
        return message

    def _gone(
        self, error: websockets.exceptions.ConnectionClosed, moment: str, sent: int = 0
    ) -> ServerGone:
        close = error.rcvd
        why = "connection lost"
        if close:
            why = f"closed with {close.code} {printable(close.reason)}".strip()
        if isinstance(error.__cause__, TimeoutError):
            why = "it took nothing of what was sent"
        if close and close.code == TOO_BIG:
            why += f"; the frame had {sent} bytes: send smaller images, or --policy.jpeg_quality=90"
        return ServerGone(f"the server at {self._url} went away while {moment} ({why})")


def mapping(value: Any) -> dict[Any, Any]:
    """Return ``value`` as a dict; empty if the server sent something else than a map."""
    return dict(value) if isinstance(value, Mapping) else {}


class Unavailable(SessionError):
    """No session now; a retry may succeed."""


class Dialer:
    """Opens sessions on one server, with retries for transient errors."""

    def __init__(
        self,
        address: Address,
        token: str | None,
        send_timeout: float,
        on_status: StatusCallback,
    ) -> None:
        """Configure the connections; nothing is opened yet.

        Args:
            address: Address of the server.
            token: Bearer token, if the server requires one.
            send_timeout: See `Link`.
            on_status: Called with each message of the server while it loads a checkpoint.
        """
        self._address, self._send_timeout, self._on_status = address, send_timeout, on_status
        self._has_token = token is not None
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    @property
    def url(self) -> str:
        """Address of the server, for messages."""
        return self._address.url

    def open(self, checkpoint: str | int | None, timeout: float) -> Link:
        """Open a session on ``checkpoint``, or on the server's default one.

        If no server listens, or it is full or briefly down (HTTP 429 and 5xx), retry after 0.1 s,
        0.2 s, ... up to 5 s, each shortened by a random part of up to half (jitter), so that many
        robots do not all come back at the same moment.

        Args:
            checkpoint: Its id.
            timeout: Seconds after which no further attempt is made.

        Raises:
            Busy: The server stayed full.
            SessionError: There is no server, or it refuses.
        """
        path = "/api/v1/session"
        if checkpoint is not None:
            path += "/" + quote(str(checkpoint), safe="/")
        deadline = time.monotonic() + timeout
        pause = FIRST_PAUSE_S
        while True:
            try:
                connection, stack = self._dial(path, deadline)
                return Link(connection, stack, self.url, self._on_status, self._send_timeout)
            except (Unavailable, Busy, ServerGone):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise
                time.sleep(min(left, pause * random.uniform(0.5, 1)))
                pause = min(2 * pause, LONGEST_PAUSE_S)

    def refusal(self, status: int) -> SessionError:
        """Return the error for an HTTP status other than success."""
        answer = f"{self.url} refused the session (HTTP {status})"
        if status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
            why = "not with this token" if self._has_token else "it wants a token"
            return SessionError(f"{answer}, {why}: {_MEND_TOKEN}")
        if status == http.HTTPStatus.TOO_MANY_REQUESTS or status >= 500:
            return Unavailable(f"{answer}: it is overloaded or down for now; try again later")
        return SessionError(f"{answer}: it is not an inference server, or its address has a path")

    def nobody(self, error: Exception) -> Unavailable:
        """Return the error for a server that cannot be reached, and how to start one."""
        why = printable(str(error).split("\n")[0]) or type(error).__name__
        return Unavailable(
            f"no inference server at {self.url} ({why}): start one with"
            " `python -m positronic.vendors.lerobot.server --checkpoints_dir=...`"
        )

    def _dial(self, path: str, deadline: float) -> tuple[ClientConnection, ExitStack]:
        stack = ExitStack()
        try:
            opening = connect(
                self._address.url + path,
                # Images do not compress: deflate costs ten times the round trip.
                compression=None,
                max_size=MAX_REPLY_BYTES,
                # A server that hangs must not delay the error message.
                close_timeout=1.0,
                open_timeout=max(1.0, deadline - time.monotonic()),
                additional_headers=self.headers,
                proxy=None,
            )
            return stack.enter_context(opening), stack
        except websockets.exceptions.InvalidStatus as error:
            raise self.refusal(error.response.status_code) from error
        except (socket.gaierror, ssl.SSLCertVerificationError) as error:
            # Neither changes within seconds.
            raise SessionError(str(self.nobody(error))) from error
        except (OSError, websockets.exceptions.InvalidHandshake) as error:
            raise self.nobody(error) from error
