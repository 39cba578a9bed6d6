"""Session state machine, the same on the server and on the client.

::

    OPENING ──▶ LOADING ──▶ READY ◀──▶ INFERRING
       │           │          │            │
       └───────────┴────▶ CLOSED ◀─────────┘

``OPENING`` → ``READY`` is the case of a checkpoint that is already loaded. A frame that does not
fit the present state is an error of one of the two sides, and raises.
"""

from enum import Enum

from positronic.errors import SessionError


class SessionState(Enum):
    """State of a session."""

    OPENING = "opening"
    """Connected; no checkpoint chosen yet."""
    LOADING = "loading"
    """The checkpoint is being loaded; status frames flow."""
    READY = "ready"
    """The server waits for an observation."""
    INFERRING = "inferring"
    """The client waits for a reply."""
    CLOSED = "closed"
    """Over, for whatever reason."""


_NEXT: dict[SessionState, frozenset[SessionState]] = {
    SessionState.OPENING: frozenset(
        {SessionState.LOADING, SessionState.READY, SessionState.CLOSED}
    ),
    SessionState.LOADING: frozenset(
        {SessionState.LOADING, SessionState.READY, SessionState.CLOSED}
    ),
    SessionState.READY: frozenset({SessionState.INFERRING, SessionState.CLOSED}),
    SessionState.INFERRING: frozenset({SessionState.READY, SessionState.CLOSED}),
    SessionState.CLOSED: frozenset({SessionState.CLOSED}),
}


class SessionMachine:
    """Holds the state of one session and refuses transitions that the protocol does not have."""

    def __init__(self) -> None:
        self.state = SessionState.OPENING

    @property
    def closed(self) -> bool:
        """Whether the session is over."""
        return self.state is SessionState.CLOSED

    def to(self, state: SessionState) -> None:
        """Go to ``state``.

        Raises:
            SessionError: The protocol has no such transition; names expected and got.
        """
        allowed = _NEXT[self.state]
        if state not in allowed:
            expected = ", ".join(sorted(s.value for s in allowed))
            raise SessionError(
                f"a session that is {self.state.value} cannot become {state.value};"
                f" expected one of: {expected}"
            )
        self.state = state

    def require(self, state: SessionState) -> None:
        """Raise SessionError unless the session is in ``state``."""
        if self.state is not state:
            raise SessionError(f"expected a session that is {state.value}, got {self.state.value}")
