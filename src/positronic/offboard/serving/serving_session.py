"""Serving session: one episode on one model, observations in, actions out, on any channel."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from foundation.text import printable
from positronic.errors import SessionError
from positronic.offboard.models.model import ModelSession
from positronic.offboard.models.store import Lease
from positronic.offboard.serving.channel import Answer, Malformed, Reason, Request, Timing, failure
from positronic.offboard.serving.fair_pool import Account, FairPool
from positronic.offboard.serving.limits import RateLimit, ServerOptions
from positronic.offboard.serving.logs import log
from positronic.offboard.serving.metrics import Metrics
from positronic.offboard.session import SessionMachine, SessionState

logger = logging.getLogger(__name__)

TASK_CHARACTERS = 200
LONGEST_PAUSE_S = 1.0
# Whoever sends what cannot be decoded is not read for so many times what that took to find out.
PAUSES, CHEAP_S = 10, 0.001


class ServingSession:
    """Takes each observation through ``prepare``, the batch of its model, and ``finish``.

    What goes wrong becomes the answer to this one request; the session and all others go on.
    """

    def __init__(
        self,
        name: str,
        client: str,
        *,
        metrics: Metrics,
        options: ServerOptions,
        pool: FairPool,
    ) -> None:
        """Open a session that has no model yet.

        Args:
            name: Unique in this server, for logs and the status page.
            client: Address of the client.
            metrics: Where answers and failures are counted.
            options: The limits.
            pool: Threads in which observations are decoded and encoded.
        """
        self.name, self.client = name, client
        self.machine = SessionMachine()
        self.model_id: str | None = None
        self.task = ""
        self.inferences = self.errors = 0
        self.pause_s = 0.0
        """How long to read nothing of a client that asks too often, or what is dear to refuse."""
        self.opened = self.last_used = time.monotonic()
        self._metrics, self._options, self._pool = metrics, options, pool
        self._limit = RateLimit(options.rate_limit)
        self._account = Account()
        self._refused_s = 0.0
        self._lease: Lease | None = None
        self._session: ModelSession | None = None
        self._step: Future[Any] | None = None

    def begin(self, model_id: str, lease: Lease) -> Mapping[str, Any]:
        """Start an episode with the model; returns its meta. The lease is given back at the end."""
        self.model_id, self._lease = model_id, lease
        self._session = lease.model.new_session()
        return self._session.meta

    async def answer(self, request: Request) -> bytes:
        """Answer one request; never raises but for cancellation."""
        self.machine.to(SessionState.INFERRING)
        self.pause_s = 0.0
        deadline = asyncio.timeout(self._options.request_timeout_s)
        try:
            async with deadline:
                return await self._infer(request)
        except Exception as error:
            if deadline.expired():
                limit = self._options.request_timeout_s
                return self._failed(request, self._late(limit))
            return self._failed(request, self._explain(error))
        finally:
            self.last_used = time.monotonic()
            self.machine.to(SessionState.READY)

    def close(self) -> None:
        """Give back what the session holds; more calls do nothing."""
        self.machine.to(SessionState.CLOSED)
        session, self._session = self._session, None
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()
        if session is None:
            return
        if self._step is not None:
            self._step.add_done_callback(lambda _: session.close())
        else:
            session.close()

    async def _infer(self, request: Request) -> bytes:
        assert self._lease is not None
        began = time.perf_counter()
        self._limit()
        prepared = await self._in_pool(self._prepare, request)
        pre_ms = _ms_since(began)
        value, queue_ms, infer_ms, batch_size = None, 0.0, 0.0, 0
        # None: the session still has actions of an earlier prediction.
        if prepared is not None:
            predicted = await self._lease.batcher.predict(prepared)
            value, batch_size = predicted.value, predicted.batch_size
            queue_ms, infer_ms = predicted.queue_s * 1000, predicted.infer_s * 1000
        began = time.perf_counter()
        assert self._session is not None
        # Here and not in a thread: it holds the interpreter's lock all the time anyway, and is
        # over before a thread would have been woken.
        actions = self._session.finish(value)
        timing = Timing(pre_ms, queue_ms, infer_ms, _ms_since(began), batch_size)
        reply = request.encode(Answer(result=actions, timing=timing))
        self.inferences += 1
        self._metrics.answered(timing)
        return reply

    def _prepare(self, request: Request) -> Any:
        assert self._session is not None
        began = time.thread_time()
        try:
            obs = request.decode()
        except SessionError as error:
            self._refused_s = time.thread_time() - began
            raise Malformed(str(error)) from error
        task = obs.get("task")
        self.task = printable(task, TASK_CHARACTERS) if isinstance(task, str) else ""
        return self._session.prepare(obs)

    async def _in_pool[T](self, step: Callable[..., T], *args: object) -> T:
        """Run one step in a thread, after one that was given up but could not be stopped."""
        if self._step is not None:
            await asyncio.wait({asyncio.wrap_future(self._step)})
        future = self._step = self._pool.submit(self._account, step, *args)
        try:
            return await asyncio.wrap_future(future)
        finally:
            # What is done is forgotten, and with it an observation of megabytes.
            if future.done():
                self._step = None

    def _failed(self, request: Request, answer: Answer) -> bytes:
        assert answer.reason is not None
        self.errors += 1
        self._metrics.failed(answer.reason)
        if answer.reason is Reason.RATE and answer.retry_after_ms is not None:
            self.pause_s = min(answer.retry_after_ms / 1000, LONGEST_PAUSE_S)
        elif self._refused_s > CHEAP_S:
            self.pause_s = min(PAUSES * self._refused_s, LONGEST_PAUSE_S)
        self._refused_s = 0.0
        return request.encode(answer)

    def _explain(self, error: Exception) -> Answer:
        answer = failure(error, self._metrics.last_cost_ms)
        if answer.reason is Reason.INTERNAL:
            # Its text may hold paths of this machine; those who run the server see all of it.
            log(logger, "inference failed", level=logging.ERROR, exc_info=True, session=self.name)
        return answer

    def _late(self, limit: float) -> Answer:
        log(logger, "request took too long", session=self.name, limit_s=limit)
        return Answer(
            error=f"no answer within {limit:g} s; the server is overloaded or its model is stuck",
            reason=Reason.TIMEOUT,
        )


def _ms_since(began: float) -> float:
    return (time.perf_counter() - began) * 1000
