"""A session as the client sees it."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import websockets.exceptions
from websockets.sync.client import ClientConnection

from positronic.errors import ServerGone, SessionError
from positronic.offboard import wire
from positronic.offboard.request import RequestFilter
from positronic.offboard.session import SessionMachine, SessionState
from positronic.policy.base import Action

# Servers send a status frame every 5 to 10 s while they load.
STATUS_TIMEOUT_S = 30.0

StatusCallback = Callable[[str], None]


class RemoteSession:
    """One connection, which is one session: it ends with the connection."""

    def __init__(
        self,
        connection: ClientConnection,
        stack: ExitStack,
        url: str,
        *,
        context: Mapping[str, Any],
        request_timeout: float,
        on_status: StatusCallback,
    ) -> None:
        """Wait until the server is ready.

        Args:
            connection: Just opened.
            stack: Closes the connection.
            url: Of the server, for messages.
            context: Added to every observation.
            request_timeout: Seconds to wait for a reply.
            on_status: Called with what the server says before it is ready.
        """
        self._connection, self._stack = connection, stack
        self._url, self._context = url, dict(context)
        self._request_timeout, self._on_status = request_timeout, on_status
        self._machine = SessionMachine()
        self._meta: dict[str, Any] = {}
        try:
            self._handshake()
        except BaseException:
            self.close()
            raise
        self._request = RequestFilter(self._meta.get("contract"))

    @property
    def meta(self) -> dict[str, Any]:
        """What the server said when it was ready."""
        return self._meta

    @property
    def state(self) -> SessionState:
        """Where the session is."""
        return self._machine.state

    def infer(self, obs: Mapping[str, Any]) -> list[Action]:
        """Send one observation and wait for the chunk of actions.

        Raises:
            SessionError: The server could not answer this one; the session can go on. Or it
                took longer than the request time-out; the session is over, because a late
                answer must not be taken for the answer to a later observation.
            ServerGone: The connection ended.
        """
        if self._machine.closed:
            raise ServerGone(f"the session with {self._url} is over; open a new one")
        frame = wire.pack(self._request({**self._context, **obs}))
        self._machine.to(SessionState.INFERRING)
        try:
            self._connection.send(frame)
            reply = self._receive(self._request_timeout, "a reply was due")
        except SessionError:
            self.close()
            raise
        except websockets.exceptions.ConnectionClosed as error:
            self.close()
            raise self._gone(error, "an observation was sent") from error
        self._machine.to(SessionState.READY)
        if "error" in reply:
            raise SessionError(f"the server could not infer: {reply['error']}")
        if "result" not in reply:
            raise SessionError(f"a reply without result or error, only {sorted(map(str, reply))}")
        result = reply["result"]
        if result is None:
            return []
        return list(result) if isinstance(result, list) else [result]

    def close(self) -> None:
        """End the session."""
        self._machine.to(SessionState.CLOSED)
        self._stack.close()

    def __enter__(self) -> "RemoteSession":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _handshake(self) -> None:
        while True:
            frame = self._receive(STATUS_TIMEOUT_S, "the server was getting ready")
            status = frame.get("status")
            if status == "ready":
                self._machine.to(SessionState.READY)
                self._meta = dict(frame.get("meta") or {})
                return
            if status == "error" or "error" in frame:
                raise SessionError(f"{self._url} refused: {frame.get('error')}")
            if status is None:
                raise SessionError(f"{self._url} does not speak the session protocol")
            self._machine.to(SessionState.LOADING)
            self._on_status(str(frame.get("message") or status))

    def _receive(self, timeout: float, moment: str) -> dict[Any, Any]:
        try:
            data = self._connection.recv(timeout=timeout)
        except TimeoutError as error:
            raise SessionError(
                f"{self._url} did not answer within {timeout:g} s while {moment}"
            ) from error
        except websockets.exceptions.ConnectionClosed as error:
            raise self._gone(error, moment) from error
        if isinstance(data, str):
            raise SessionError(f"{self._url} sent text, expected a binary frame")
        message = wire.unpack(data)
        if not isinstance(message, dict):
            raise SessionError(f"{self._url} sent a {type(message).__name__}, expected a map")
        return message

    def _gone(self, error: websockets.exceptions.ConnectionClosed, moment: str) -> ServerGone:
        close = error.rcvd
        why = f"closed with {close.code} {close.reason}".strip() if close else "connection lost"
        return ServerGone(f"the server at {self._url} went away while {moment} ({why})")
