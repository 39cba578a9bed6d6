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
    """What to do at each control time, as far as is known."""

    def at(self, t: float) -> Action:
        """Return the action in force at ``t``; the last one stays in force afterwards."""

    def over(self, t: float) -> bool:
        """Whether nothing is planned for ``t`` any more."""


@dataclass(frozen=True)
class CrossFade:
    """Goes over from one plan to a chunk within ``seconds``, beginning on the old plan."""

    old: Plan
    new: Chunk
    since: float
    seconds: float

    def at(self, t: float) -> Action:
        """Return what lies between the two; see `positronic.policy.blending.between`."""
        share = (t - self.since) / self.seconds
        if share >= 1:
            return self.new.at(t)
        return between(self.old.at(t), self.new.at(t), max(0.0, share))

    def over(self, t: float) -> bool:
        """Whether the new chunk is used up."""
        return self.new.over(t)


@dataclass(frozen=True)
class Ensemble:
    """Temporal ensembling: the mean of what all chunks say of the same control time.

    The i-th oldest of them has weight ``exp(-coeff * i)``: algorithm 2 of Zhao et al., "Learning
    Fine-Grained Bimanual Manipulation with Low-Cost Hardware" (2023).
    """

    chunks: tuple[Chunk, ...]
    coeff: float

    def at(self, t: float) -> Action:
        """Return the mean of those that are not used up; see `positronic.policy.blending.mean`."""
        present = [chunk for chunk in self.chunks if not chunk.over(t)] or [self.chunks[-1]]
        weights = [exp(-self.coeff * i) for i in range(len(present))]
        return mean([chunk.at(t) for chunk in present], weights)

    def over(self, t: float) -> bool:
        """Whether all chunks are used up."""
        return all(chunk.over(t) for chunk in self.chunks)


def joined(old: Plan, new: Chunk, t: float, cross_fade_s: float) -> Plan:
    """Play ``new`` from ``t`` on, after a cross-fade of so many seconds, if any."""
    if not cross_fade_s:
        return new
    if isinstance(old, CrossFade) and t >= old.since + old.seconds:
        old = old.new
    return CrossFade(old, new, t, cross_fade_s)


"""So many of the last answers say how long the next one may take."""


class AsynchronousPlayer:
    """The `Player` that asks for the next chunk in a thread while the present one plays.

    The next chunk is asked for at the last control step from which its answer still comes in time,
    going by the slowest of the recent ones. The answer to the observation of time ``t0`` is taken
    up at the first control step ``t >= t0 + delay``, from the action that is due then: what its
    beginning says has been done meanwhile by the chunk before. Where that one was used up too
    early, the last action is held, the steps count as starved, and the new chunk is played from
    the moment at which the robot came to stand.

    An inference longer than a chunk leaves nothing to overlap: then the next chunk is asked for
    when the present one is used up, as `ChunkPlayer` does.

    What is played depends on control time and on the charged delays alone, not on the thread: a
    control step waits for the thread where it cannot be known yet whether its answer is due.
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
        """Play what ``session`` infers.

        Args:
            session: Where chunks come from.
            action_fps: See `ChunkPlayer`.
            delay: What an inference is charged; on a robot, `measured`.
            cross_fade_s: Seconds within which the actions go over from one chunk to the next.
            temporal_ensemble_coeff: Asks as often as answers come, and plays the mean of all
                chunks, weighted by ``exp(-coeff * i)`` from the oldest on; ACT uses 0.01.
            margin_s: How many seconds earlier than expected to be necessary a chunk is asked for.

        Raises:
            UsageError: The policy needs every observation, or the arguments make no sense.
        """
        if cross_fade_s and temporal_ensemble_coeff is not None:
            raise UsageError("choose one: cross_fade_s or temporal_ensemble_coeff")
        if not (0 <= cross_fade_s < inf and 0 <= margin_s < inf):
            raise UsageError(
                f"cross_fade_s={cross_fade_s} and margin_s={margin_s}: expected 0 s or more"
            )
        if cross_fade_s or temporal_ensemble_coeff is not None:
            import scipy.spatial.transform  # noqa: F401 - takes longer than a control step may
        _refuse_every_step(session)
        self._fps, self._delay, self._margin_s = frame_rate(session, action_fps), delay, margin_s
        self._cross_fade_s, self._coeff = float(cross_fade_s), temporal_ensemble_coeff
        self._executor = ThreadPoolExecutor(1, "asynchronous player")
        self._request: _Request | None = None
        self.session = session
        self.reset()

    @property
    def inferences(self) -> int:
        """How many chunks came since the last reset."""
        return len(self.latencies)

    def reset(self, session: Session | None = None) -> None:
        """See `Player.reset`; waits for the answer that is under way, and drops it."""
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
        self._stands_since: float | None = None

    def action(self, obs: Mapping[str, Any], t: float) -> Action:
        """See `Player.action`; what the thread raised is raised here, when it is due."""
        require_later(self._t, t)
        if self._t is not None and t > self._t:
            self._period = t - self._t
        self._t = t
        self._take_up_if_due(t)
        if self._request is None and self._wanted(t):
            self._ask(obs, t)
            self._take_up_if_due(t)
        assert self._plan is not None
        if not self._plan.over(t):
            self._stands_since = None
        else:
            self.starved += 1
            self._stands_since = t if self._stands_since is None else self._stands_since
        return self._plan.at(t)

    def close(self) -> None:
        """See `Player.close`."""
        self._executor.shutdown()

    def _wanted(self, t: float) -> bool:
        """Whether the next step would be too late to ask for the next chunk."""
        chunk = self._chunk
        if chunk is None or self._coeff is not None:
            return True
        expected = max(self._delay(seconds) for seconds in self.latencies[-RECENT:])
        if expected >= chunk.horizon:
            return chunk.over(t)
        steps_left = ceil((chunk.end - t - TOLERANCE_S) / self._period)
        # The present chunk is to last until the cross-fade is over.
        lead = expected + self._margin_s + self._cross_fade_s
        steps_needed = ceil((lead - TOLERANCE_S) / self._period)
        # Asked for any earlier, it would be older than new when it comes.
        return steps_left <= min(steps_needed, (chunk.horizon / 2 + TOLERANCE_S) / self._period)

    def _ask(self, obs: Mapping[str, Any], t: float) -> None:
        self.asked += 1
        # Whoever gave the observation may reuse its buffers for the next one.
        kept = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in obs.items()}
        delay = no_delay if self._chunk is None else self._delay
        self._request = _Request(self._executor, self.session, kept, t, delay)

    def _take_up_if_due(self, t: float) -> None:
        request = self._request
        if request is None or not request.due(t):
            return
        self._request = None
        chunk = Chunk.of(request.future.result(), request.t, self._fps)
        self.latencies.append(request.seconds)
        if self._plan is None:
            self._plan = Ensemble((chunk,), self._coeff) if self._coeff is not None else chunk
        else:
            if self._stands_since is not None:
                chunk = chunk.moved(chunk.start + t - max(self._stands_since, request.t))
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
        """Whether the answer is there at control time ``t``; waits until that is known."""
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
            " every control step and cannot be asked ahead: play it with --player=.synchronous"
        )
