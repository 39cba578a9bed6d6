"""A session as the client sees it: one episode, which may outlast its connection."""

import itertools
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from positronic.errors import Busy, ServerGone, SessionError
from positronic.offboard import reply as replies
from positronic.offboard.dialing import Dialer
from positronic.offboard.link import mapping
from positronic.offboard.request import RequestFilter
from positronic.offboard.session import SessionState
from positronic.policy.base import Action

LONGEST_PAUSE_S = 1.0


@dataclass(frozen=True)
class SessionOptions:
    """How a client behaves; see `positronic.offboard.client.InferenceClient`."""

    connect_timeout: float = 5.0
    request_timeout: float = 60.0
    reconnect_timeout: float = 2.0
    allow_history_loss: bool = False
    jpeg_quality: int | None = None


class RemoteSession:
    """A session on a server.

    Where the connection is lost, it goes on with a new one on the same checkpoint if the policy
    remembers nothing between observations, and if the server is one that says so: then nobody can
    tell the difference.
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
            options: Time-outs and the like.

        Raises:
            SessionError: No server, or it refuses; the message says what to do.
        """
        self._dialer, self._context, self._options = dialer, dict(context), options
        self._numbers = itertools.count(1)
        self._closed = threading.Event()
        self.reconnects = 0
        """How often the connection was lost and replaced."""
        self.timing: dict[str, Any] = {}
        """What the server said of its last answer: milliseconds by step, and the batch size."""
        self._link = dialer.open(checkpoint, options.connect_timeout)
        self._meta = self._link.meta
        quality = options.jpeg_quality if self._meta.get("jpeg") is True else None
        self._request = RequestFilter(self._meta.get("contract"), quality)

    @property
    def meta(self) -> dict[str, Any]:
        """What the server said when it was ready; and ``reconnects``, if there were any."""
        return {**self._meta, "reconnects": self.reconnects} if self.reconnects else self._meta

    @property
    def state(self) -> SessionState:
        """Where the session is."""
        return self._link.machine.state

    def infer(self, obs: Mapping[str, Any]) -> list[Action]:
        """Send one observation and wait for the chunk of actions.

        Raises:
            Busy: The server was too busy all the time; the session can go on.
            SessionError: The server could not answer this one; the session can go on. Or it took
                longer than the request time-out: with this project's servers the session can go
                on, with others it is over.
            ServerGone: The connection ended, and there is no going on.
        """
        if self._link.machine.closed:
            raise ServerGone(f"the session with {self._dialer.url} is over; open a new one")
        request = self._request({**self._context, **obs})
        try:
            reply = self._ask(request)
        except ServerGone as error:
            self._reconnect(error)
            reply = self._ask(request)
        self.timing = mapping(reply.get("timing"))
        if "error" in reply:
            kind = Busy if _try_again(reply) else SessionError
            raise kind(f"the server could not infer: {replies.error(reply['error'])}")
        return replies.actions(reply)

    def close(self) -> None:
        """End the session; from another thread, an inference under way as well."""
        self._closed.set()
        self._link.close()

    def __enter__(self) -> "RemoteSession":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _ask(self, request: Mapping[str, Any]) -> dict[Any, Any]:
        """Ask, and ask again while the server is busy and there is time."""
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
    """Whether the same request may succeed a little later."""
    code = reply.get("code")
    return isinstance(code, str) and code in ("busy", "rate")
