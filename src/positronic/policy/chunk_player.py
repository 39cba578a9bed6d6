"""Synchronous player: requests an action chunk, waits, plays it, requests the next."""

import time
from collections.abc import Mapping
from typing import Any

from positronic.errors import SessionError
from positronic.policy.base import Action, Session
from positronic.policy.blending import jump
from positronic.policy.chunk import Chunk, frame_rate
from positronic.policy.player import TOLERANCE_S, Delay, Jump, no_delay


class ChunkPlayer:
    """Synchronous `Player`: the next chunk is requested when the current one is used up.

    No delay is charged for the first chunk, since the robot stands still until it has one. While a
    later chunk is delayed in control time, the last action is held and the steps count as starved;
    the chunk is then played from its first action, since the robot stood still meanwhile.
    """

    def __init__(
        self, session: Session, action_fps: float | None = None, *, delay: Delay = no_delay
    ) -> None:
        """Create a player of ``session``.

        Args:
            session: Source of the chunks.
            action_fps: Rate of actions without ``timestamp``; if None the session's
                ``action_fps``, else 15.
            delay: Control time charged per inference.
        """
        self._fps, self._delay = frame_rate(session, action_fps), delay
        self.session = session
        self.reset()

    @property
    def inferences(self) -> int:
        """Number of chunks received since the last reset."""
        return len(self.latencies)

    def reset(self, session: Session | None = None) -> None:
        """See `Player.reset`."""
        if session is not None:
            self.session = session
        self.latencies: list[float] = []
        self.jumps: list[Jump] = []
        self.asked = self.starved = 0
        self._chunk: Chunk | None = None
        self._next: Chunk | None = None
        self._due = 0.0
        self._t: float | None = None

    def action(self, obs: Mapping[str, Any], t: float) -> Action:
        """See `Player.action`."""
        require_later(self._t, t)
        self._t = t
        if self._next is None and (self._chunk is None or self._chunk.over(t)):
            self._send_request(obs, t)
        if self._next is not None and t >= self._due - TOLERANCE_S:
            self._start_chunk(self._next, t)
        elif self._next is not None:
            self.starved += 1
        assert self._chunk is not None
        return self._chunk.at(t)

    def close(self) -> None:
        """No effect: nothing runs between two actions."""

    def _send_request(self, obs: Mapping[str, Any], t: float) -> None:
        self.asked += 1
        began = time.perf_counter()
        answer = self.session.infer(obs)
        seconds = time.perf_counter() - began
        self.latencies.append(seconds)
        self._next = Chunk.of(answer, t, self._fps)
        self._due = t if self._chunk is None else t + self._delay(seconds)

    def _start_chunk(self, chunk: Chunk, t: float) -> None:
        if self._chunk is not None:
            self.jumps.append(jump(self._chunk.actions[-1], chunk.actions[0]))
        self._chunk, self._next = chunk.moved(t), None


def require_later(before: float | None, t: float) -> None:
    """Check that control time does not decrease.

    Raises:
        SessionError: ``t`` is before ``before``.
    """
    if before is not None and t < before - TOLERANCE_S:
        raise SessionError(
            f"control time went back from {before:.3f} s to {t:.3f} s;"
            " call reset() between episodes"
        )
