"""Action chunk, placed in control time."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite

from positronic.errors import SessionError
from positronic.policy.base import Action, Session
from positronic.policy.player import TOLERANCE_S

DEFAULT_FPS = 15.0


@dataclass(frozen=True)
class Chunk:
    """Actions, each due at ``start + due[i]`` and in force until the next one is due."""

    actions: tuple[Action, ...]
    due: tuple[float, ...]
    """Seconds after ``start``."""
    horizon: float
    """Seconds after ``start`` at which the chunk is used up."""
    start: float

    @classmethod
    def of(cls, answer: Sequence[Action], start: float, fps: float) -> "Chunk":
        """Create a chunk from the actions inferred from the observation of time ``start``.

        An action is due at its ``timestamp``, or else at its index divided by ``fps``. The chunk
        ends one interval after its last action is due, or at the ``timestamp`` of a final entry
        without a command.

        Raises:
            SessionError: There are no actions, or the timestamps decrease.
        """
        due = [float(action.get("timestamp", i / fps)) for i, action in enumerate(answer)]
        if not all(map(isfinite, due)):
            raise SessionError("a timestamp of the policy's actions is not finite")
        if due != sorted(due):
            raise SessionError("the policy's action timestamps decrease; they must be in order")
        commands = [i for i, action in enumerate(answer) if action.keys() - {"timestamp"}]
        if not commands:
            raise SessionError("the policy returned no actions")
        last = commands[-1]
        if last + 1 < len(due):
            horizon = due[last + 1]
        else:
            # The last action lasts as long as the one before it.
            horizon = due[last] + (due[last] - due[last - 1] if last > 0 else 1 / fps)
        return cls(
            tuple(answer[i] for i in commands), tuple(due[i] for i in commands), horizon, start
        )

    @property
    def end(self) -> float:
        """Control time at which the chunk is used up."""
        return self.start + self.horizon

    def at(self, t: float) -> Action:
        """Return the action in force at ``t``; the last one stays in force afterwards."""
        return self.actions[max(0, bisect_right(self.due, t - self.start + TOLERANCE_S) - 1)]

    def over(self, t: float) -> bool:
        """Return whether the chunk is used up at ``t``."""
        return t >= self.end - TOLERANCE_S

    def moved(self, start: float) -> "Chunk":
        """Return the same actions with another start."""
        return replace(self, start=start)


def frame_rate(session: Session, action_fps: float | None) -> float:
    """Rate of actions without timestamps: as given, else the session's, else 15 per second."""
    return float(action_fps or session.meta.get("action_fps") or DEFAULT_FPS)
