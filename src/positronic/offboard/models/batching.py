"""Dynamic batching: answers requests of several sessions with one call of the model.

A batch starts as soon as every open session of the model waits for an answer, so that a single
session never waits for others; or when it is full; or when the batch window ends. While one batch
runs, the next one fills. Requests are served first in, first out.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

from foundation.errors import UsageError
from positronic.errors import Busy
from positronic.offboard.models.model import Model

logger = logging.getLogger(__name__)

STOPPING = "the server is stopping; connect again in a moment"


@dataclass(frozen=True)
class Batching:
    """How requests of concurrent sessions are batched."""

    max_batch: int = 16
    """Maximum batch size; 1 predicts each request by itself."""
    window_s: float = 0.002
    """Batch window: seconds that a request waits for others, from when the model is free."""
    max_queue: int = 128
    """Maximum number of requests queued for one model; more are refused."""

    def __post_init__(self) -> None:
        for name, value in (("max_batch", self.max_batch), ("max_queue", self.max_queue)):
            if value < 1:
                raise UsageError(f"{name} is {value}; expected 1 or more")
        if not 0 <= self.window_s < math.inf:
            raise UsageError(f"the batch window is {self.window_s} s; expected 0 or more")


@dataclass(frozen=True)
class Predicted:
    """One prediction, with its queueing and inference time."""

    value: Any
    queue_s: float
    """Seconds from the request to the start of its prediction."""
    infer_s: float
    """Seconds that its batch took."""
    batch_size: int


@dataclass(eq=False, slots=True)
class _Waiting:
    request: Any
    answer: "asyncio.Future[Predicted]"
    since: float = field(default_factory=time.perf_counter)


class Batcher:
    """The queue of one model; used in the event loop's thread."""

    def __init__(
        self,
        model: Model,
        executor: Executor,
        batching: Batching,
        *,
        open_sessions: Callable[[], int],
    ) -> None:
        """Batch the requests for ``model``.

        Args:
            model: Predicts.
            executor: Its inference thread, which may be shared with other models.
            batching: The bounds.
            open_sessions: Returns how many sessions are open.
        """
        self.model, self._executor, self._batching = model, executor, batching
        self._open_sessions = open_sessions
        # The inference thread pops on the left, the event loop appends on the right.
        self._queue: deque[_Waiting] = deque()
        self._busy = False
        self._ended = 0.0
        self._window: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """Number of requests in the queue."""
        return len(self._queue)

    async def predict(self, request: Any) -> Predicted:
        """Answer one request; if cancelled, it leaves the queue.

        Raises:
            Busy: The queue is full, or the server stops.
            Exception: What ``Model.predict`` raises for this request alone.
        """
        if self._closed:
            raise Busy(STOPPING)
        if len(self._queue) >= self._batching.max_queue:
            raise Busy(
                f"the server is busy: {len(self._queue)} observations wait for this checkpoint"
                " already; send it again in a moment, or share the robots among more servers"
            )
        loop = asyncio.get_running_loop()
        waiting = _Waiting(request, loop.create_future())
        self._queue.append(waiting)
        self._consider(loop)
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            with contextlib.suppress(ValueError):
                self._queue.remove(waiting)
            raise
        finally:
            # As in `_finish`.
            del waiting

    def close(self) -> None:
        """Refuse queued and further requests; a running batch is still answered."""
        self._closed = True
        with contextlib.suppress(IndexError):
            while True:
                answer = self._queue.popleft().answer
                if not answer.done():
                    answer.set_exception(Busy(STOPPING))

    def _consider(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._busy or not self._queue:
            return
        if len(self._queue) >= min(self._open_sessions(), self._batching.max_batch):
            self._start(loop)
        elif self._window is None:
            # Sessions just answered may send again in a moment. If the others started without them,
            # two halves of the robots would take turns for ever.
            waited = time.perf_counter() - max(self._queue[0].since, self._ended)
            self._window = loop.call_later(self._batching.window_s - waited, self._start, loop)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._window is not None:
            self._window.cancel()
            self._window = None
        if self._queue:
            self._busy = True
            self._executor.submit(self._run, loop)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        """Predict a batch of the requests now queued; runs in the inference thread."""
        batch = self._take()
        outcomes: list[Predicted | Exception] = []
        try:
            outcomes = self._predict([(waiting.request, waiting.since) for waiting in batch])
        finally:
            loop.call_soon_threadsafe(self._finish, loop, batch, outcomes)

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        with contextlib.suppress(IndexError):
            while len(batch) < self._batching.max_batch:
                waiting = self._queue.popleft()
                if not waiting.answer.done():
                    batch.append(waiting)
        return batch

    def _predict(self, requests: list[tuple[Any, float]]) -> list[Predicted | Exception]:
        if not requests:
            return []
        began = time.perf_counter()
        try:
            values = self.model.predict([request for request, _ in requests])
            if len(values) != len(requests):
                raise RuntimeError(f"{len(requests)} requests got {len(values)} predictions")
        except Exception as error:
            if len(requests) == 1:
                return [error]
            # One bad request fails the batch; one by one, the others succeed.
            logger.warning(
                "a batch of %d failed (%s: %s); its requests are predicted one by one",
                *(len(requests), type(error).__name__, error),
            )
            return [outcome for request in requests for outcome in self._predict([request])]
        infer_s = time.perf_counter() - began
        return [
            Predicted(value, began - since, infer_s, len(requests))
            for value, (_, since) in zip(values, requests, strict=True)
        ]

    def _finish(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[_Waiting],
        outcomes: list[Predicted | Exception],
    ) -> None:
        self._busy, self._ended = False, time.perf_counter()
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if waiting.answer.done():
                continue
            if isinstance(outcome, Predicted):
                waiting.answer.set_result(outcome)
            else:
                waiting.answer.set_exception(outcome)
        # The traceback of an error references a frame with these lists: break the reference cycle.
        batch.clear()
        outcomes.clear()
        self._consider(loop)
