"""Player protocol for action chunks, and the inference delay charged in control time."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from positronic.policy.base import Action, Session

# Control time comes from integer nanoseconds, timestamps from i / fps: equal but for rounding.
TOLERANCE_S = 1e-6

Delay = Callable[[float], float]
"""From the wall-clock seconds that an inference took to the seconds of control time that it is
charged. It never decreases as its argument grows."""


def no_delay(seconds: float) -> float:
    """Control time stands still during inference, as simulated time can."""
    return 0.0


def measured(seconds: float) -> float:
    """Charge what the inference took, which is what a real robot pays."""
    return seconds


def fixed(delay: float) -> Delay:
    """Charge ``delay`` seconds, however long the inference took: the same run on any machine."""
    return lambda seconds: delay


class Jump(NamedTuple):
    """How far apart an old chunk and the new one are at the moment of the switch.

    The old one's action for that moment is compared, or its last one where it is used up.
    """

    metres: float
    """Between the target positions; 0 for joint targets."""
    radians: float
    """Between the target rotations, or of the joint that differs most."""
    grip: float
    """Between the target grips."""


class Player(Protocol):
    """Turns the chunks of one session into one action per control step."""

    session: Session
    latencies: list[float]
    """Wall-clock seconds of each answer since the last reset."""
    jumps: list[Jump]
    """One for each chunk but the first."""
    asked: int
    """How many chunks were asked for since the last reset."""
    starved: int
    """Control steps since the last reset for which no action was there in time."""

    @property
    def inferences(self) -> int:
        """How many chunks came."""

    def action(self, obs: Mapping[str, Any], t: float) -> Action:
        """Return the action in force at control time ``t``.

        Args:
            obs: The present observation; looked at only when a chunk is asked for.
            t: Control time in seconds, never decreasing between two resets.

        Raises:
            SessionError: The policy returned no actions, or time went backwards; and whatever the
                session raises.
        """

    def reset(self, session: Session | None = None) -> None:
        """Forget the chunks and the counts; go on with ``session`` if one is given."""

    def close(self) -> None:
        """Wait for what still runs. Closing the session first cuts that short."""


class MakePlayer(Protocol):
    """Makes the player of one session: what ``--player=...`` chooses."""

    def __call__(self, session: Session, *, delay: Delay = no_delay) -> Player:
        """Play ``session``; inference is charged ``delay`` of the time that it took."""
