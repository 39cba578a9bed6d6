"""The client of an inference server: small, synchronous, no torch.

It talks to this project's server and to the public Positronic ones: what only ours sends
(the contract) is used where it is there and not missed where it is not.
"""

import http.client
import json
import socket
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import numpy as np
import websockets.exceptions
from numpy.typing import NDArray
from websockets.sync.client import ClientConnection, connect

from positronic.errors import ServerGone, SessionError, UsageError
from positronic.offboard import wire
from positronic.offboard.session import SessionMachine, SessionState
from positronic.policy.base import Action

# Servers send a status frame every 5 to 10 s while they load.
STATUS_TIMEOUT_S = 30.0
RETRY_S = 0.25

StatusCallback = Callable[[str], None]


def print_status(message: str) -> None:
    """Show what the server does before it is ready, on stderr."""
    print(f"server: {message}", file=sys.stderr, flush=True)


class InferenceClient:
    """Opens sessions on one server."""

    def __init__(
        self,
        host: str = "localhost",
        port: int = 8000,
        *,
        token: str | None = None,
        connect_timeout: float = 5.0,
        request_timeout: float = 60.0,
        on_status: StatusCallback = print_status,
    ) -> None:
        """Remember where the server is; nothing is connected yet.

        Args:
            host: Name or address of the server.
            port: Its TCP port.
            token: Bearer token, where the server wants one.
            connect_timeout: Seconds to go on trying while nothing listens there.
            request_timeout: Seconds to wait for the reply to one observation.
            on_status: Called with each message of the server while it loads a checkpoint.
        """
        if not 0 < int(port) < 65536:
            raise UsageError(f"--port={port} is no TCP port; expected 1 to 65535")
        self.host, self.port = str(host), int(port)
        self.connect_timeout, self.request_timeout = connect_timeout, request_timeout
        self._on_status = on_status
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    @property
    def url(self) -> str:
        """Where sessions are opened, ``ws://host:port``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ws://{host}:{self.port}"

    def models(self) -> list[str]:
        """List the ids of the server's checkpoints, oldest first.

        Raises:
            SessionError: No server, or one that does not list models.
        """
        connection = http.client.HTTPConnection(self.host, self.port, timeout=self.connect_timeout)
        try:
            connection.request("GET", "/api/v1/models", headers=self._headers)
            response = connection.getresponse()
            body = response.read()
            if response.status != 200:
                raise SessionError(f"{self.url} does not list its models (HTTP {response.status})")
            return [str(name) for name in json.loads(body)["models"]]
        except (ValueError, KeyError, http.client.HTTPException) as error:
            raise SessionError(f"{self.url} is no inference server: {error}") from error
        except OSError as error:
            raise self._nobody(error) from error
        finally:
            connection.close()

    def new_session(
        self, checkpoint: str | int | None = None, context: Mapping[str, Any] | None = None
    ) -> "RemoteSession":
        """Connect, and wait until the server has the checkpoint ready.

        Args:
            checkpoint: Its id (``10000`` and ``010000`` are the same); None for the default one.
            context: Added to every observation, such as ``task``.

        Raises:
            SessionError: No server, or it refuses; the message says what to do.
        """
        path = "/api/v1/session"
        if checkpoint is not None:
            path += "/" + quote(str(checkpoint), safe="/")
        return RemoteSession(self._connect(self.url + path), self, context or {})

    def _connect(self, url: str) -> ClientConnection:
        deadline = time.monotonic() + self.connect_timeout
        while True:
            try:
                return connect(
                    url,
                    # Images do not compress: deflate costs ten times the round trip.
                    compression=None,
                    max_size=None,
                    open_timeout=max(1.0, deadline - time.monotonic()),
                    additional_headers=self._headers,
                    proxy=None,
                )
            except socket.gaierror as error:
                raise self._nobody(error) from error
            except websockets.exceptions.InvalidStatus as error:
                status = error.response.status_code
                raise SessionError(
                    f"{self.url} refused the session (HTTP {status});"
                    " check the token, and that it is an inference server"
                ) from error
            except (OSError, websockets.exceptions.InvalidHandshake) as error:
                if time.monotonic() + RETRY_S > deadline:
                    raise self._nobody(error) from error
                time.sleep(RETRY_S)

    def _nobody(self, error: Exception) -> SessionError:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        return SessionError(
            f"no inference server at {self.url} ({why}): start one with"
            " `python -m positronic.vendors.lerobot.server --checkpoints_dir=...`"
        )

    def status(self, message: str) -> None:
        """Pass on one message of the handshake."""
        self._on_status(message)


class RemoteSession:
    """One connection, which is one session: it ends with the connection."""

    def __init__(
        self, connection: ClientConnection, client: InferenceClient, context: Mapping[str, Any]
    ) -> None:
        self._connection = connection
        self._client = client
        self._context = dict(context)
        self._machine = SessionMachine()
        self._meta: dict[str, Any] = {}
        try:
            self._handshake()
        except BaseException:
            self.close()
            raise
        contract = self._meta.get("contract")
        self._contract = contract if isinstance(contract, Mapping) else {}
        self._image_sizes = image_sizes(self._contract)

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
            raise ServerGone(f"the session with {self._client.url} is over; open a new one")
        frame = wire.pack(self._prepare({**self._context, **obs}))
        self._machine.to(SessionState.INFERRING)
        try:
            self._connection.send(frame)
            reply = self._receive(self._client.request_timeout, "a reply was due")
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
        self._connection.close()

    def __enter__(self) -> "RemoteSession":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _prepare(self, obs: Mapping[str, Any]) -> dict[str, Any]:
        """Leave away what the server's codec does not read, and shrink images as it would."""
        wanted = self._contract.get("inputs")
        message = {k: v for k, v in obs.items() if not wanted or k in wanted or k == "task"}
        for key, (height, width) in self._image_sizes.items():
            image = message.get(key)
            if isinstance(image, np.ndarray) and image.size > height * width * 3:
                message[key] = _shrink(image, height, width)
        return message

    def _handshake(self) -> None:
        while True:
            frame = self._receive(STATUS_TIMEOUT_S, "the server was getting ready")
            status = frame.get("status")
            if status == "ready":
                self._machine.to(SessionState.READY)
                self._meta = dict(frame.get("meta") or {})
                return
            if status == "error" or "error" in frame:
                raise SessionError(f"{self._client.url} refused: {frame.get('error')}")
            if status is None:
                raise SessionError(f"{self._client.url} does not speak the session protocol")
            self._machine.to(SessionState.LOADING)
            self._client.status(str(frame.get("message") or status))

    def _receive(self, timeout: float, moment: str) -> dict[Any, Any]:
        try:
            data = self._connection.recv(timeout=timeout)
        except TimeoutError as error:
            raise SessionError(
                f"{self._client.url} did not answer within {timeout:g} s while {moment}"
            ) from error
        except websockets.exceptions.ConnectionClosed as error:
            raise self._gone(error, moment) from error
        if isinstance(data, str):
            raise SessionError(f"{self._client.url} sent text, expected a binary frame")
        message = wire.unpack(data)
        if not isinstance(message, dict):
            raise SessionError(
                f"{self._client.url} sent a {type(message).__name__}, expected a map"
            )
        return message

    def _gone(self, error: websockets.exceptions.ConnectionClosed, moment: str) -> ServerGone:
        close = error.rcvd
        why = f"closed with {close.code} {close.reason}".strip() if close else "connection lost"
        return ServerGone(f"the server at {self._client.url} went away while {moment} ({why})")


class RemotePolicy:
    """A policy on a server; every session of it is a connection of its own."""

    def __init__(
        self,
        host: str = "localhost",
        port: int = 8000,
        checkpoint: str | int | None = None,
        token: str | None = None,
        connect_timeout: float = 5.0,
        request_timeout: float = 60.0,
    ) -> None:
        """Remember where the policy is; see :class:`InferenceClient` for the arguments."""
        self.client = InferenceClient(
            host,
            port,
            token=token,
            connect_timeout=connect_timeout,
            request_timeout=request_timeout,
        )
        self.checkpoint = checkpoint
        self._meta: dict[str, Any] | None = None

    @property
    def meta(self) -> dict[str, Any]:
        """What the server says of the checkpoint; asks it once."""
        if self._meta is None:
            self.new_session().close()
        assert self._meta is not None
        return self._meta

    def new_session(self, context: Mapping[str, Any] | None = None) -> RemoteSession:
        """Open a connection; see :meth:`InferenceClient.new_session`."""
        session = self.client.new_session(self.checkpoint, context)
        self._meta = session.meta
        return session

    def close(self) -> None:
        """Nothing is held between sessions."""


def image_sizes(contract: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Which raw images the codec of a contract resizes first of all, and to which height and width.

    Only those can be resized before they are sent with the same result to the last bit, since
    resizing to the size that an image has already changes nothing.
    """
    spec = (contract.get("codec") or {}).get("spec") or {}
    parts = spec.get("parts", []) if spec.get("kind") == "parallel" else [spec]
    images = [part for part in parts if isinstance(part, Mapping) and part.get("kind") == "image"]
    sources = [part["source"] for part in images]
    return {
        part["source"]: (part["size"][0], part["size"][1])
        for part in images
        if sources.count(part["source"]) == 1
    }


def _shrink(image: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Resize as the codec does; what is no image goes as it is, and the server says so."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        return image
    from positronic.codec.images import resize_with_pad

    return resize_with_pad(image, height, width)
