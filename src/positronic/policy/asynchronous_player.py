"""Asynchronous player: plays an action chunk while the next one is inferred in a thread."""

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from math import ceil, exp, inf
from typing import Any, Protocol

import numpy as np

from foundation.errors import UsageError
from positronic.policy.base import Action, Session
from positronic.policy.blending import between, jump, mean
from positronic.policy.chunk import Chunk, frame_rate
from positronic.policy.chunk_player import require_later
from positronic.policy.player import TOLERANCE_S, Delay, Jump, no_delay

RECENT = 10


class Plan(Protocol):
    """Actions by control time, made from one or more chunks."""

    def at(self, t: float) -> Action:
        """Return the action in force at ``t``; the last one stays in force afterwards."""

    def over(self, t: float) -> bool:
        """Return whether the plan has ended at ``t``."""


@dataclass(frozen=True)
class CrossFade:
    """Interpolates from a plan to a chunk within ``seconds``, starting from the old plan."""

    old: Plan
    new: Chunk
    since: float
    seconds: float

    def at(self, t: float) -> Action:
        """Return the interpolated action; see `positronic.policy.blending.between`."""
        share = (t - self.since) / self.seconds
        if share >= 1:
            return self.new.at(t)
        return between(self.old.at(t), self.new.at(t), max(0.0, share))

    def over(self, t: float) -> bool:
        """Return whether the new chunk is used up."""
        return self.new.over(t)


@dataclass(frozen=True)
class Ensemble:
    """Temporal ensembling: the mean of the actions of all chunks for the same control time.

    The i-th oldest of them has weight ``exp(-coeff * i)``: algorithm 2 of Zhao et al., "Learning
    Fine-Grained Bimanual Manipulation with Low-Cost Hardware" (2023).
    """

    chunks: tuple[Chunk, ...]
    coeff: float

    def at(self, t: float) -> Action:
        """Return the mean over chunks not used up; see `positronic.policy.blending.mean`."""
        present = [chunk for chunk in self.chunks if not chunk.over(t)] or [self.chunks[-1]]
        weights = [exp(-self.coeff * i) for i in range(len(present))]
        return mean([chunk.at(t) for chunk in present], weights)

    def over(self, t: float) -> bool:
        """Return whether all chunks are used up."""
        return all(chunk.over(t) for chunk in self.chunks)


def joined(old: Plan, new: Chunk, t: float, cross_fade_s: float) -> Plan:
    """Plan that plays ``new`` from ``t``, with a cross-fade of ``cross_fade_s`` seconds."""
    if not cross_fade_s:
        return new
    if isinstance(old, CrossFade) and t >= old.since + old.seconds:
        old = old.new
    return CrossFade(old, new, t, cross_fade_s)


"""Number of recent latencies by which the next one is estimated."""


class AsynchronousPlayer:
    """A `Player` that requests the next chunk in a thread while the current one plays.

    The next chunk is requested at the last control step from which it still arrives in time, by the
    slowest of the recent inferences. A chunk inferred from the observation of time ``t0`` starts to
    play at the first control step ``t >= t0 + delay``, with the action that is due at ``t``: the
    time before that was covered by the previous chunk. If the previous chunk ended earlier, its
    last action is held, these steps count as starved, and the new chunk is played from the action
    due when the previous one ended.

    If an inference takes longer than a chunk, nothing can overlap: then the next chunk is requested
    when the current one is used up, as `ChunkPlayer` does.

    The actions depend only on control time and the charged delays, not on thread timing: a control
    step waits for the thread until it is known whether the answer is due.
    """

    def __init__(
        self,
        session: Session,
        action_fps: float | None = None,
        *,
        delay: Delay = no_delay,
        cross_fade_s: float = 0.0,
        temporal_ensemble_coeff: float | None = None,
        margin_s: float = 0.05,
    ) -> None:
        """Create a player of ``session``.

        Args:
            session: Source of the chunks.
            action_fps: See `ChunkPlayer`.
            delay: Control time charged per inference; on a robot, `measured`.
            cross_fade_s: Duration in seconds of the cross-fade from one chunk to the next.
            temporal_ensemble_coeff: Infer continuously and play the mean of all current chunks,
                weighted by ``exp(-coeff * i)``, oldest first; ACT uses 0.01.
            margin_s: Seconds by which a chunk is requested earlier than expected to be necessary.

        Raises:
            UsageError: The policy needs every observation, or an argument is invalid.
        """
        if cross_fade_s and temporal_ensemble_coeff is not None:
            raise UsageError("choose one: cross_fade_s or temporal_ensemble_coeff")
        if not (0 <= cross_fade_s < inf and 0 <= margin_s < inf):
            raise UsageError(
                f"cross_fade_s={cross_fade_s} and margin_s={margin_s}: expected 0 s or more"
            )
        if cross_fade_s or temporal_ensemble_coeff is not None:
            import scipy.spatial.transform  # noqa: F401 - loaded now, as it takes longer than a control step
        _refuse_every_step(session)
        self._fps, self._delay, self._margin_s = frame_rate(session, action_fps), delay, margin_s
        self._cross_fade_s, self._coeff = float(cross_fade_s), temporal_ensemble_coeff
        self._executor = ThreadPoolExecutor(1, "asynchronous player")
        self._request: _Request | None = None
        self.session = session
        self.reset()

    @property
    def inferences(self) -> int:
        """Number of chunks received since the last reset."""
        return len(self.latencies)

    def reset(self, session: Session | None = None) -> None:
        """See `Player.reset`; waits for a pending inference and discards its result."""
        if self._request is not None:
            wait([self._request.future])
        if session is not None:
            _refuse_every_step(session)
            self.session = session
        self.latencies: list[float] = []
        self.jumps: list[Jump] = []
        self.asked = self.starved = 0
        self._request = None
        self._chunk: Chunk | None = None
        self._plan: Plan | None = None
        self._period = 1 / self._fps
        self._t: float | None = None
        self._stopped_at: float | None = None

    def action(self, obs: Mapping[str, Any], t: float) -> Action:
        """See `Player.action`; an exception in the thread is raised here when the answer is due."""
        require_later(self._t, t)
        if self._t is not None and t > self._t:
            self._period = t - self._t
        self._t = t
        self._start_next_if_due(t)
        if self._request is None and self._should_request(t):
            self._send_request(obs, t)
            self._start_next_if_due(t)
        assert self._plan is not None
        if not self._plan.over(t):
            self._stopped_at = None
        else:
            self.starved += 1
            self._stopped_at = t if self._stopped_at is None else self._stopped_at
        return self._plan.at(t)

    def close(self) -> None:
        """See `Player.close`."""
        self._executor.shutdown()

    def _should_request(self, t: float) -> bool:
        """Return whether the next chunk must be requested at this step."""
        chunk = self._chunk
        if chunk is None or self._coeff is not None:
            return True
        expected = max(self._delay(seconds) for seconds in self.latencies[-RECENT:])
        if expected >= chunk.horizon:
            return chunk.over(t)
        steps_left = ceil((chunk.end - t - TOLERANCE_S) / self._period)
        # The current chunk must last until the cross-fade has ended.
        lead = expected + self._margin_s + self._cross_fade_s
        steps_needed = ceil((lead - TOLERANCE_S) / self._period)
        # Not before half of the chunk has played, or most of the new one would be outdated.
        return steps_left <= min(steps_needed, (chunk.horizon / 2 + TOLERANCE_S) / self._period)

    def _send_request(self, obs: Mapping[str, Any], t: float) -> None:
        self.asked += 1
        # The caller may reuse the observation's buffers.
        kept = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in obs.items()}
        delay = no_delay if self._chunk is None else self._delay
        self._request = _Request(self._executor, self.session, kept, t, delay)

    def _start_next_if_due(self, t: float) -> None:
        request = self._request
        if request is None or not request.due(t):
            return
        self._request = None
        chunk = Chunk.of(request.future.result(), request.t, self._fps)
        self.latencies.append(request.seconds)
        if self._plan is None:
            self._plan = Ensemble((chunk,), self._coeff) if self._coeff is not None else chunk
        else:
            if self._stopped_at is not None:
                chunk = chunk.moved(chunk.start + t - max(self._stopped_at, request.t))
            self.jumps.append(jump(self._plan.at(t), chunk.at(t)))
            self._plan = self._join(self._plan, chunk, t)
        self._chunk = chunk

    def _join(self, plan: Plan, chunk: Chunk, t: float) -> Plan:
        if isinstance(plan, Ensemble):
            present = tuple(old for old in plan.chunks if not old.over(t))
            return Ensemble((*present, chunk), plan.coeff)
        return joined(plan, chunk, t, self._cross_fade_s)


class _Request:
    """One inference in the thread."""

    def __init__(
        self,
        executor: ThreadPoolExecutor,
        session: Session,
        obs: Mapping[str, Any],
        t: float,
        delay: Delay,
    ) -> None:
        self.t, self._delay = t, delay
        self.seconds = 0.0
        self._began = time.perf_counter()
        self.future: Future[list[Action]] = executor.submit(self._infer, session, obs)

    def due(self, t: float) -> bool:
        """Return whether the answer is due at control time ``t``; waits until that is known."""
        waited = t - self.t + TOLERANCE_S
        if waited >= self._delay(inf):
            return True
        while not self.future.done():
            elapsed = time.perf_counter() - self._began
            if waited < self._delay(elapsed):
                return False
            wait([self.future], timeout=max(0.001, waited - elapsed))
        return waited >= self._delay(self.seconds)

    def _infer(self, session: Session, obs: Mapping[str, Any]) -> list[Action]:
        try:
            return session.infer(obs)
        finally:
            self.seconds = time.perf_counter() - self._began


def _refuse_every_step(session: Session) -> None:
    if session.meta.get("every_step"):
        raise UsageError(
            f"the policy ({session.meta.get('type', 'of unknown type')}) needs the observation of"
            " every control step and cannot infer ahead: use --player=.synchronous"
        )
