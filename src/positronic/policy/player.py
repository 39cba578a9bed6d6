"""Player protocol for action chunks, and the inference delay charged in control time."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from positronic.policy.base import Action, Session

# Control time comes from integer nanoseconds, timestamps from i / fps: they differ by rounding.
TOLERANCE_S = 1e-6

Delay = Callable[[float], float]
"""Maps the wall-clock seconds of an inference to the seconds of control time charged for it; must
be non-decreasing."""


def no_delay(seconds: float) -> float:
    """Charge nothing: simulated time stands still during inference."""
    return 0.0


def measured(seconds: float) -> float:
    """Charge the measured time of the inference, as on a real robot."""
    return seconds


def fixed(delay: float) -> Delay:
    """Charge ``delay`` seconds per inference, for the same run on any machine."""
    return lambda seconds: delay


class Jump(NamedTuple):
    """Distance between the old chunk and the new one at the moment of the switch.

    Compared is the old chunk's action for that moment, or its last one if it is used up.
    """

    metres: float
    """Between the target positions; 0 for joint targets."""
    radians: float
    """Between the target rotations, or the largest difference of a joint."""
    grip: float
    """Between the target grips."""


class Player(Protocol):
    """Turns the chunks of one session into one action per control step."""

    session: Session
    latencies: list[float]
    """Wall-clock seconds of each answer since the last reset."""
    jumps: list[Jump]
    """One per chunk except the first."""
    asked: int
    """Number of chunks requested since the last reset."""
    starved: int
    """Number of control steps since the last reset whose action did not arrive in time."""

    @property
    def inferences(self) -> int:
        """Number of chunks received."""

    def action(self, obs: Mapping[str, Any], t: float) -> Action:
        """Return the action in force at control time ``t``.

        Args:
            obs: The current observation; used only when a chunk is requested.
            t: Control time in seconds, never decreasing between two resets.

        Raises:
            SessionError: The policy returned no actions, or time went backwards. Errors of the
                session are raised too.
        """

    def reset(self, session: Session | None = None) -> None:
        """Discard chunks and counts; switch to ``session`` if given."""

    def close(self) -> None:
        """Wait for a pending inference. Close the session first to end it early."""


class MakePlayer(Protocol):
    """Factory of the player of a session, as chosen by ``--player=...``."""

    def __call__(self, session: Session, *, delay: Delay = no_delay) -> Player:
        """Create the player of ``session`` with the inference delay ``delay``."""
