"""Opens connections to a server that may not be there yet, or be full."""

import http
import random
import socket
import ssl
import time
from contextlib import ExitStack
from urllib.parse import quote

import websockets.exceptions
from websockets.sync.client import ClientConnection, connect

from foundation.text import printable
from positronic.errors import Busy, ServerGone, SessionError
from positronic.offboard.address import Address
from positronic.offboard.link import Link, StatusCallback

# A reply is some hundred actions; a ready message may hold statistics.
MAX_REPLY_BYTES = 64 << 20
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
_MEND_TOKEN = "set AUTH_TOKEN, or give --policy.token=..."


class Unavailable(SessionError):
    """No session now; perhaps later."""


class Dialer:
    """Opens sessions on one server, trying again for a while where that may help."""

    def __init__(
        self,
        address: Address,
        token: str | None,
        send_timeout: float,
        on_status: StatusCallback,
    ) -> None:
        """Remember where the server is.

        Args:
            address: Of the server.
            token: Bearer token, where the server wants one.
            send_timeout: See `Link`.
            on_status: Called with each message of the server while it loads a checkpoint.
        """
        self._address, self._send_timeout, self._on_status = address, send_timeout, on_status
        self._has_token = token is not None
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    @property
    def url(self) -> str:
        """Of the server, for messages."""
        return self._address.url

    def open(self, checkpoint: str | int | None, timeout: float) -> Link:
        """Open a session on ``checkpoint``, or on the server's default one.

        Nobody who listens, a server that is full, and one that is down for a moment (HTTP 429 and
        5xx) are tried again after 0.1 s, 0.2 s, ... up to 5 s, each less up to half of it by
        chance, so that many robots do not all come back at the same moment.

        Args:
            checkpoint: Its id.
            timeout: Seconds after which to give up, if there is no session in the making.

        Raises:
            Busy: The server was full all the time.
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
        """Say what an HTTP status other than success means."""
        answer = f"{self.url} refused the session (HTTP {status})"
        if status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
            why = "not with this token" if self._has_token else "it wants a token"
            return SessionError(f"{answer}, {why}: {_MEND_TOKEN}")
        if status == http.HTTPStatus.TOO_MANY_REQUESTS or status >= 500:
            return Unavailable(f"{answer}: it is overloaded or down for now; try again later")
        return SessionError(f"{answer}: it is no inference server, or its address has a path")

    def nobody(self, error: Exception) -> Unavailable:
        """Say that nobody listens, and how to change that."""
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
                # A server that hangs must not hold up the report of it.
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
