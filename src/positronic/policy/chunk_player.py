"""Plays chunks of actions in time: the part of control that knows what time it is."""

import time
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

from positronic.errors import SessionError
from positronic.policy.base import Action, Session

DEFAULT_FPS = 15.0
# Control time comes from integer nanoseconds, timestamps from i / fps: equal but for rounding.
TOLERANCE_S = 1e-6


class ChunkPlayer:
    """Turns a session's chunks into one action per control step.

    An action is due at the time at which its chunk was asked for plus its ``timestamp`` (or its
    index over the frame rate), and stays in force until the next one is due. When the chunk is
    used up, that is one spacing after its last action was due, or at the ``timestamp`` of a closing
    entry that commands nothing, the next chunk is asked for.
    """

    def __init__(self, session: Session, action_fps: float | None = None) -> None:
        """Play what ``session`` infers.

        Args:
            session: Where chunks come from.
            action_fps: Actions per second where they carry no ``timestamp``; taken from the
                session's ``action_fps`` if None, and 15 if that is silent as well.
        """
        self.session = session
        self.latencies: list[float] = []
        """Wall-clock seconds that each inference took."""
        self._fps = float(action_fps or session.meta.get("action_fps") or DEFAULT_FPS)
        self._actions: list[Action] = []
        self._due: list[float] = []
        self._start = 0.0
        self._end = 0.0

    @property
    def inferences(self) -> int:
        """How many chunks were asked for since the last reset."""
        return len(self.latencies)

    def reset(self, session: Session | None = None) -> None:
        """Forget the present chunk and the counts; go on with ``session`` if one is given."""
        if session is not None:
            self.session = session
        self._actions = []
        self.latencies = []

    def action(self, obs: Mapping[str, Any], t: float) -> Action:
        """Return the action in force at control time ``t``.

        Args:
            obs: The present observation; looked at only when a new chunk is due.
            t: Control time in seconds, never decreasing between two resets.

        Raises:
            SessionError: The policy returned no actions, or time went backwards.
        """
        if self._actions and t < self._start - TOLERANCE_S:
            raise SessionError(
                f"control time went back from {self._start:.3f} s to {t:.3f} s;"
                " call reset() between episodes"
            )
        if not self._actions or t >= self._end - TOLERANCE_S:
            self._ask(obs, t)
        return self._actions[max(0, bisect_right(self._due, t - self._start + TOLERANCE_S) - 1)]

    def _ask(self, obs: Mapping[str, Any], t: float) -> None:
        began = time.perf_counter()
        chunk = self.session.infer(obs)
        self.latencies.append(time.perf_counter() - began)
        due = [float(action.get("timestamp", i / self._fps)) for i, action in enumerate(chunk)]
        if due != sorted(due):
            raise SessionError("the policy's action timestamps decrease; they must be in order")
        commands = [i for i, action in enumerate(chunk) if action.keys() - {"timestamp"}]
        if not commands:
            raise SessionError("the policy answered with no action to play")
        last = commands[-1]
        if last + 1 < len(due):
            closing = due[last + 1]
        else:
            # The last action lasts as long as the one before it did.
            closing = due[last] + (due[last] - due[last - 1] if last > 0 else 1 / self._fps)
        self._actions = [chunk[i] for i in commands]
        self._due = [due[i] for i in commands]
        self._start = t
        self._end = t + closing
