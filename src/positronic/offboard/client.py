"""Client of an inference server: small, synchronous, no torch.

It talks to this project's server and to public Positronic ones; what only ours sends (the contract,
request numbers) is optional.
"""

import contextlib
import http
import http.client
import itertools
import os
import random
import shutil
import socket
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from foundation.errors import UsageError
from foundation.text import printable
from positronic.errors import Busy, ServerGone, SessionError
from positronic.offboard import messages
from positronic.offboard.address import Address
from positronic.offboard.link import Dialer, StatusCallback, mapping
from positronic.offboard.messages import RequestFilter
from positronic.offboard.session import SessionState
from positronic.policy.base import Action

__all__ = ["InferenceClient", "RemotePolicy", "RemoteSession", "SessionOptions", "print_status"]

TOKEN_VARIABLE = "AUTH_TOKEN"
DEFAULT_HOST, DEFAULT_PORT = "localhost", 8000
# Bounds of a list of models: bytes, and seconds to answer, since a bucket may have to be listed.
MAX_LIST_BYTES, LIST_TIMEOUT_S = 4 << 20, 60.0
# Checkpoints named in a message.
MAX_SHOWN = 20
# Between two requests to a busy server.
LONGEST_PAUSE_S = 1.0


@dataclass(frozen=True)
class SessionOptions:
    """Options of a client; see `positronic.offboard.client.InferenceClient`."""

    connect_timeout: float = 5.0
    request_timeout: float = 60.0
    reconnect_timeout: float = 2.0
    allow_history_loss: bool = False
    jpeg_quality: int | None = None


class RemoteSession:
    """Session on a server: one episode, over one WebSocket connection at a time.

    If the connection is lost, it continues on a new one with the same checkpoint, provided that the
    server numbers requests and the policy keeps no history between observations.
    """

    def __init__(
        self,
        dialer: Dialer,
        checkpoint: str | int | None,
        context: Mapping[str, Any],
        options: SessionOptions,
    ) -> None:
        """Connect, and wait until the server is ready.

        Args:
            dialer: Opens connections.
            checkpoint: Id of the checkpoint; None for the server's default.
            context: Added to every observation.
            options: Time-outs and other settings.

        Raises:
            SessionError: There is no server, or it refuses; the message says what to do.
        """
        self._dialer, self._context, self._options = dialer, dict(context), options
        self._numbers = itertools.count(1)
        self._closed = threading.Event()
        self.reconnects = 0
        """How often the connection was lost and replaced."""
        self.timing: dict[str, Any] = {}
        """What the server reported of its last answer: milliseconds by step, and the batch size."""
        self._link = dialer.open(checkpoint, options.connect_timeout)
        self._meta = self._link.meta
        quality = options.jpeg_quality if self._meta.get("jpeg") is True else None
        self._request = RequestFilter(self._meta.get("contract"), quality)
        self._stack = None
        if "local_stack" in self._meta and not self._link.numbered:  # a public server
            from positronic.offboard.local_stack import LocalStack

            self._stack = LocalStack(self._meta["local_stack"], dialer.url)
            if self._stack.fps is not None:
                self._meta = {**self._meta, "action_fps": self._stack.fps}

    @property
    def meta(self) -> dict[str, Any]:
        """The meta of the server's ready message; and ``reconnects``, if there were any."""
        return {**self._meta, "reconnects": self.reconnects} if self.reconnects else self._meta

    @property
    def state(self) -> SessionState:
        """The state of the session."""
        return self._link.machine.state

    def infer(self, obs: Mapping[str, Any]) -> list[Action]:
        """Send one observation and wait for the chunk of actions.

        Raises:
            Busy: The server stayed too busy; the session can go on.
            SessionError: The server could not answer this one; the session can go on. Or it took
                longer than the request time-out: with this project's servers the session can go
                on, with others it is over.
            ServerGone: The connection ended and cannot be replaced.
        """
        if self._link.machine.closed:
            raise ServerGone(f"the session with {self._dialer.url} is over; open a new one")
        raw = {**self._context, **obs}
        request = self._request(raw if self._stack is None else self._stack.encode(raw))
        try:
            reply = self._ask(request)
        except ServerGone as error:
            self._reconnect(error)
            reply = self._ask(request)
        self.timing = mapping(reply.get("timing"))
        if "error" in reply:
            kind = Busy if _try_again(reply) else SessionError
            raise kind(f"the server could not infer: {messages.error(reply['error'])}")
        actions = messages.actions(reply)
        return actions if self._stack is None else self._stack.decode(actions)

    def close(self) -> None:
        """End the session; called from another thread, it ends an inference in progress as well."""
        self._closed.set()
        self._link.close()

    def __enter__(self) -> "RemoteSession":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _ask(self, request: Mapping[str, Any]) -> dict[Any, Any]:
        """Send a request; retry while the server is busy, until the request time-out."""
        deadline = time.monotonic() + self._options.request_timeout
        for attempt in itertools.count():
            timeout = deadline - time.monotonic() if attempt else self._options.request_timeout
            reply = self._link.ask(request, self._numbers, timeout)
            if not _try_again(reply):
                break
            hint = reply.get("retry_after_ms")
            pause = (hint if isinstance(hint, int) and hint > 0 else 50) / 1000
            pause = min(pause * 2 ** min(attempt, 10), LONGEST_PAUSE_S) * random.uniform(1, 1.5)
            if time.monotonic() + pause >= deadline or self._closed.wait(pause):
                break
        return reply

    def _reconnect(self, lost: ServerGone) -> None:
        """Replace the connection, or raise ``lost`` with the reason why not."""
        if self._closed.is_set() or self._link.refused_frame or not self._link.numbered:
            raise lost
        if self._meta.get("every_step") is True and not self._options.allow_history_loss:
            raise ServerGone(
                f"{lost}; the policy looks back at earlier observations, which are lost with the"
                " session: begin a new episode, or go on regardless with"
                " --policy.allow_history_loss"
            ) from lost
        if not self._options.reconnect_timeout:
            raise lost
        checkpoint = self._meta.get("checkpoint_id")
        try:
            link = self._dialer.open(checkpoint, self._options.reconnect_timeout)
        except SessionError as error:
            raise ServerGone(f"{lost}; and no new session: {error}") from error
        changed = [
            k for k in ("checkpoint_id", "contract") if link.meta.get(k) != self._meta.get(k)
        ]
        if changed or self._closed.is_set():
            link.close()
            raise ServerGone(f"{lost}; it came back with another {' and '.join(changed)}") from lost
        self._link = link
        self.reconnects += 1


def _try_again(reply: Mapping[Any, Any]) -> bool:
    """Return whether the same request may succeed a little later."""
    code = reply.get("code")
    return isinstance(code, str) and code in ("busy", "rate")


class _StatusLine:
    """Prints a server's status messages on stderr, while it is not ready yet.

    On a terminal each replaces the one before, and `clear` removes the last one. Elsewhere they are
    lines, the first one held back: often the server is ready before it sends a second.
    """

    def __init__(self) -> None:
        self._waiting = False

    def __call__(self, message: str) -> None:
        """Print a message."""
        line = f"server: {message}"
        if sys.stderr.isatty():
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[K{line[:width]}", end="", file=sys.stderr, flush=True)
        elif self._waiting:
            print(line, file=sys.stderr, flush=True)
        self._waiting = True

    def clear(self) -> None:
        """Forget the messages, as the server is ready or has refused."""
        if self._waiting and sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        self._waiting = False


print_status = _StatusLine()


class InferenceClient:
    """Opens sessions on one server."""

    def __init__(
        self,
        host: str = DEFAULT_HOST,
        port: int = DEFAULT_PORT,
        *,
        url: str | None = None,
        token: str | None = None,
        connect_timeout: float = 5.0,
        request_timeout: float = 60.0,
        reconnect_timeout: float = 2.0,
        allow_history_loss: bool = False,
        jpeg_quality: int | None = None,
        on_status: StatusCallback = print_status,
    ) -> None:
        """Configure the client; nothing is connected yet.

        Args:
            host: Name or address of the server.
            port: Its TCP port.
            url: Instead of both: ``ws://``, ``wss://``, ``http://`` or ``https://``
                ``HOST[:PORT][/PATH]``.
            token: Bearer token, if the server requires one; by default that of the environment
                variable ``AUTH_TOKEN``.
            connect_timeout: Seconds to keep trying while no server listens or it is full.
            request_timeout: Seconds to wait for the reply to one observation.
            reconnect_timeout: Seconds to try to reconnect when the connection is lost; 0: not at
                all.
            allow_history_loss: Reconnect even if the policy looks back at earlier observations.
            jpeg_quality: 1 to 95 sends images as JPEG (lossy) if the server supports it; None sends
                raw pixels.
            on_status: Called with each message of the server while it loads a checkpoint.

        Raises:
            UsageError: The address, a time-out or the quality is invalid.
        """
        if url is not None and (host, int(port)) != (DEFAULT_HOST, DEFAULT_PORT):
            raise UsageError(f"url={url} and host={host}, port={port}: give one or the other")
        for name, seconds in (
            ("connect_timeout", connect_timeout),
            ("request_timeout", request_timeout),
            ("reconnect_timeout", reconnect_timeout),
        ):
            if not seconds >= 0 or (name == "request_timeout" and not seconds):
                raise UsageError(f"{name}={seconds}: expected a number of seconds")
        if jpeg_quality is not None and not 1 <= jpeg_quality <= 95:
            raise UsageError(f"jpeg_quality={jpeg_quality}: expected 1 to 95, such as 90")
        self.address = Address.of(host, port) if url is None else Address.parse(url)
        self.options = SessionOptions(
            connect_timeout, request_timeout, reconnect_timeout, allow_history_loss, jpeg_quality
        )
        self._dialer = Dialer(self.address, _token(token), request_timeout, on_status)

    @property
    def url(self) -> str:
        """The server's address, ``ws://host:port``."""
        return self.address.url

    def models(self) -> list[str]:
        """List the ids of the server's checkpoints, oldest first.

        Raises:
            SessionError: There is no server, or it does not list models.
        """
        connection = self.address.http_connection(self.options.connect_timeout)
        try:
            connection.connect()
            # The connection's own time-out applies to each piece of the answer, however small.
            deadline = threading.Timer(LIST_TIMEOUT_S, _hang_up, [connection.sock])
            deadline.start()
            try:
                status, body = self._get(connection, f"{self.address.path}/api/v1/models")
            finally:
                deadline.cancel()
        except (ValueError, http.client.HTTPException) as error:
            why = printable(error) or type(error).__name__
            raise SessionError(f"{self.url} is not an inference server: {why}") from error
        except OSError as error:
            raise self._dialer.nobody(error) from error
        finally:
            connection.close()
        if status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
            raise self._dialer.refusal(status)
        if status != http.HTTPStatus.OK:
            raise SessionError(f"{self.url} does not list its models (HTTP {status})")
        if len(body) > MAX_LIST_BYTES:
            raise SessionError(f"{self.url} lists more models than {MAX_LIST_BYTES} bytes")
        from positronic.offboard import ready

        return ready.models(body, self.url)

    def _get(self, connection: http.client.HTTPConnection, path: str) -> tuple[int, bytes]:
        connection.request("GET", path, headers=self._dialer.headers)
        with connection.getresponse() as response:
            return response.status, response.read(MAX_LIST_BYTES + 1)

    def new_session(
        self, checkpoint: str | int | None = None, context: Mapping[str, Any] | None = None
    ) -> RemoteSession:
        """Connect, and wait until the server has the checkpoint ready.

        Args:
            checkpoint: Its id (``10000`` and ``010000`` are the same); None for the default one.
            context: Added to every observation, such as ``task``.

        Raises:
            SessionError: There is no server, or it refuses; the message says what to do.
        """
        try:
            return RemoteSession(self._dialer, checkpoint, context or {}, self.options)
        finally:
            print_status.clear()


class RemotePolicy:
    """A policy on a server; each session has its own connection."""

    def __init__(
        self,
        host: str = DEFAULT_HOST,
        port: int = DEFAULT_PORT,
        checkpoint: str | int | None = None,
        **options: Any,
    ) -> None:
        """Configure the policy; see :class:`InferenceClient` for the other arguments."""
        self.client = InferenceClient(host, port, **options)
        self.checkpoint = checkpoint
        self._meta: dict[str, Any] | None = None

    @property
    def meta(self) -> dict[str, Any]:
        """The server's meta of the checkpoint; fetched once."""
        if self._meta is None:
            self.new_session().close()
        assert self._meta is not None
        return self._meta

    def require_checkpoint(self) -> None:
        """Ask a server that lists its checkpoints for this policy's; nothing is loaded.

        Raises:
            SessionError: It is not among them.
        """
        if self.checkpoint is None:
            return
        try:
            found = self.client.models()
        except SessionError:
            return  # a session will tell, or say that there is no server
        wanted = str(self.checkpoint)
        if not any(wanted == name or _is_step(wanted, name) for name in found):
            shown = ", ".join(found[-MAX_SHOWN:]) or "none"
            older = f"{len(found) - MAX_SHOWN} older ones, " if len(found) > MAX_SHOWN else ""
            raise SessionError(
                f"{self.client.url} has no checkpoint {printable(wanted, 80)};"
                f" it has {older}{shown}"
            )

    def new_session(self, context: Mapping[str, Any] | None = None) -> RemoteSession:
        """Open a connection; see :meth:`InferenceClient.new_session`."""
        session = self.client.new_session(self.checkpoint, context)
        self._meta = session.meta
        return session

    def close(self) -> None:
        """Do nothing: no connection is held between sessions."""


def _is_step(wanted: str, name: str) -> bool:
    """Return whether both are the same step: ``10000`` is ``010000``."""
    both = wanted.isdecimal() and name.isdecimal()
    return both and wanted.lstrip("0") == name.lstrip("0")


def _hang_up(opened: socket.socket) -> None:
    with contextlib.suppress(OSError):
        opened.shutdown(socket.SHUT_RDWR)


def _token(given: str | None) -> str | None:
    """Return the given token, or that of the environment; None if empty."""
    token = (os.environ.get(TOKEN_VARIABLE, "") if given is None else str(given)).strip()
    if not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(f"the token ({TOKEN_VARIABLE}) has characters that no header can carry")
    return token or None
