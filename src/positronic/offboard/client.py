"""The client of an inference server: small, synchronous, no torch.

It talks to this project's server and to the public Positronic ones: what only ours sends
(the contract) is used where it is there and not missed where it is not.
"""

import http.client
import json
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote

import websockets.exceptions
from websockets.sync.client import ClientConnection, connect

from positronic.errors import SessionError, UsageError
from positronic.offboard.remote_session import RemoteSession, StatusCallback

RETRY_S = 0.25


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
        stack, connection = self._connect(path)
        return RemoteSession(
            connection,
            stack,
            self.url,
            context=context or {},
            request_timeout=self.request_timeout,
            on_status=self._on_status,
        )

    def _connect(self, path: str) -> tuple[ExitStack, ClientConnection]:
        stack = ExitStack()
        deadline = time.monotonic() + self.connect_timeout
        while True:
            try:
                opening = connect(
                    self.url + path,
                    # Images do not compress: deflate costs ten times the round trip.
                    compression=None,
                    max_size=None,
                    # A server that hangs must not hold up the report of it.
                    close_timeout=1.0,
                    open_timeout=max(1.0, deadline - time.monotonic()),
                    additional_headers=self._headers,
                    proxy=None,
                )
                return stack, stack.enter_context(opening)
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
