"""Session service: admits, runs, drains and ends the sessions of one server."""

import asyncio
import contextlib
import itertools
import logging
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from foundation.text import printable
from positronic.errors import SessionError
from positronic.offboard.models.model import ModelSession
from positronic.offboard.models.store import Lease, ModelStore
from positronic.offboard.serving.channel import (
    GOING_AWAY,
    INTERNAL_ERROR,
    TRY_AGAIN_LATER,
    Answer,
    Channel,
    ClientGone,
    Malformed,
    Reason,
    Request,
    Timing,
    failure,
)
from positronic.offboard.serving.fair_pool import Account, FairPool
from positronic.offboard.serving.handshake import Refused, find_model, lease_model, local_stack
from positronic.offboard.serving.limits import RateLimit, ServerOptions
from positronic.offboard.serving.logs import log
from positronic.offboard.serving.metrics import Metrics
from positronic.offboard.session import SessionMachine, SessionState

logger = logging.getLogger(__name__)

TASK_CHARACTERS = 200
LONGEST_PAUSE_S = 1.0
# After a frame that cannot be decoded, reading pauses for this multiple of the time it took.
PAUSES, CHEAP_S = 10, 0.001


# Encoding an observation takes a core; more threads would only wait for the GIL.
MAX_THREADS = 8
# How long clients may take to agree to the end of their session.
CLOSE_TIMEOUT_S = 5.0
INTERNAL = "internal error; see the server's log"
DRAINING = "the server is shutting down; connect again in a moment, or to another one"


class ServingSession:
    """A session on the server: ``prepare``, batched prediction and ``finish`` for each observation.

    An error becomes the answer to that request; this session and all others continue.
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
        """Pause before the next read of a client that sends too often or costly invalid frames."""
        self.opened = self.last_used = time.monotonic()
        self._metrics, self._options, self._pool = metrics, options, pool
        self._limit = RateLimit(options.rate_limit)
        self._account = Account()
        self._refused_s = 0.0
        self._lease: Lease | None = None
        self._session: ModelSession | None = None
        self._step: Future[Any] | None = None

    def begin(self, lease: Lease) -> Mapping[str, Any]:
        """Start an episode with the model; returns its meta. The lease is released at the end."""
        self._lease = lease
        self._session = lease.model.new_session()
        return self._session.meta

    async def answer(self, request: Request) -> bytes:
        """Answer one request; raises nothing but cancellation."""
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
        """Release the lease and close the session; further calls do nothing."""
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
        # Here and not in a thread: it holds the GIL all the time anyway, and is done before a
        # thread would have been woken.
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
        """Run one step in a thread, after an earlier one that timed out and still runs."""
        if self._step is not None:
            await asyncio.wait({asyncio.wrap_future(self._step)})
        future = self._step = self._pool.submit(self._account, step, *args)
        try:
            return await asyncio.wrap_future(future)
        finally:
            # Drop a finished step, which holds an observation of megabytes.
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
            # Its text may contain paths of this machine; only the log has all of it.
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


class _Served:
    """A session and how to end it from outside."""

    def __init__(self, session: ServingSession, until: asyncio.Timeout) -> None:
        self.session = session
        self.why = ""
        self.until = until
        self._ending = False

    @property
    def opening(self) -> bool:
        """Whether it is not ready yet."""
        return self.session.machine.state in (SessionState.OPENING, SessionState.LOADING)

    def may_idle(self, seconds: float, why: str = "") -> None:
        """End the session in ``seconds`` (0: never), unless it is ending already."""
        if not self._ending:
            self.why = why
            when = asyncio.get_running_loop().time() + seconds if seconds else None
            self.until.reschedule(when)

    def end(self, why: str) -> bool:
        """End the session now; returns whether it was not ending already."""
        first, self._ending = not self._ending, True
        if first:
            self.why = why
            # If the timeout has ended already, only the close frame is pending.
            with contextlib.suppress(RuntimeError):
                self.until.reschedule(asyncio.get_running_loop().time())
        return first


class Service:
    """Runs sessions over any channel, up to the limits of its options."""

    def __init__(
        self, store: ModelStore, options: ServerOptions, server_meta: Mapping[str, Any]
    ) -> None:
        """Serve the models of ``store``.

        Args:
            store: The models.
            options: The limits.
            server_meta: Fields of every ready message beside the model's own meta.
        """
        self.store, self.options = store, options
        self.metrics = Metrics(store, lambda: len(self._served))
        self.draining = False
        self.started = time.time()
        self._server_meta = server_meta
        self._served: dict[str, _Served] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        self._numbers = itertools.count(1)
        threads = min(MAX_THREADS, len(os.sched_getaffinity(0)))
        self._pool = FairPool(threads, "codec")

    @property
    def host(self) -> str:
        """The host as the operator gave it."""
        return str(self._server_meta.get("host", ""))

    @property
    def sessions(self) -> list[ServingSession]:
        """The open sessions, oldest first."""
        return [served.session for served in self._served.values()]

    @property
    def not_ready(self) -> str | None:
        """Why new sessions should go elsewhere; None if they are welcome."""
        if self.draining:
            return "draining"
        if not self.store.ready(self.store.default):
            return f"loading checkpoint {self.store.default}"
        return None

    async def serve(self, channel: Channel, requested: str | None = None) -> None:
        """Serve one client from its first frame to its last.

        Args:
            channel: The connection.
            requested: The checkpoint that the client asked for; None for the default one.
        """
        session = ServingSession(
            f"s{next(self._numbers)}",
            channel.client,
            metrics=self.metrics,
            options=self.options,
            pool=self._pool,
        )
        served = _Served(session, asyncio.timeout(None))
        try:
            self._admit()
            self._served[session.name] = served
            self._empty.clear()
            async with served.until:
                await self._run(served, channel, requested)
        except ClientGone:
            pass
        except Refused as refused:
            await self._refuse(session, channel, refused)
        except Exception as error:
            await self._end(served, channel, error)
        finally:
            self._served.pop(session.name, None)
            if not self._served:
                self._empty.set()
            session.close()
            log(logger, "closed", session=session.name, inferences=session.inferences)

    async def drain(self, timeout_s: float) -> bool:
        """Refuse new sessions, and wait for the open ones to end; end them after ``timeout_s``.

        Returns:
            Whether all of them have ended.
        """
        if not self.draining:
            log(logger, "draining", sessions=len(self._served), timeout_s=timeout_s)
        self.draining = True
        told = [served.end(DRAINING) for served in self._served.values() if served.opening]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), timeout_s)
        told += [served.end("the server is shutting down") for served in self._served.values()]
        # Sessions told in an earlier drain have had their time.
        if any(told):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), CLOSE_TIMEOUT_S)
        return not self._served

    def close(self) -> None:
        """Start no more work."""
        self.draining = True
        self._pool.shutdown()

    def _admit(self) -> None:
        limit = self.options.max_sessions
        if self.draining:
            raise Refused(DRAINING, TRY_AGAIN_LATER, Reason.BUSY)
        if len(self._served) >= limit:
            raise Refused(
                f"the server is full: all of its {limit} sessions are in use; try again later, or"
                " start it with a larger --max_sessions",
                TRY_AGAIN_LATER,
                Reason.BUSY,
            )

    async def _run(self, served: _Served, channel: Channel, requested: str | None) -> None:
        session = served.session
        model_id = session.model_id = await find_model(self.store, channel, requested)
        lease = await lease_model(
            self.store, channel, model_id, lambda: session.machine.to(SessionState.LOADING)
        )
        meta = session.begin(lease)
        grip = (meta.get("contract") or {}).get("grip") or {}
        stack = local_stack(meta.get("image_sizes") or {}, grip)
        session.machine.to(SessionState.READY)
        self.metrics.opened()
        log(logger, "opened", session=session.name, model=model_id, client=channel.client)
        own = {"local_stack": stack, "session": session.name}
        await channel.ready({**meta, **self._server_meta, **own})
        idle_s = self.options.idle_timeout_s
        while True:
            served.may_idle(idle_s, f"idle for {idle_s:g} s")
            request = await channel.receive()
            if request is None:
                return
            served.may_idle(0)
            reply = await session.answer(request)
            try:
                await channel.send(reply)
            except ClientGone:
                self.metrics.failed(Reason.DISCONNECTED)
                raise
            # Slow down clients that ask too often, lest the refusals take all the time.
            await asyncio.sleep(session.pause_s)

    async def _refuse(self, session: ServingSession, channel: Channel, refused: Refused) -> None:
        self.metrics.failed(refused.reason)
        log(logger, "refused", session=session.name, client=channel.client, why=refused)
        with contextlib.suppress(ClientGone):
            await channel.refuse(str(refused), refused.code)

    async def _end(self, served: _Served, channel: Channel, error: Exception) -> None:
        session = served.session
        if isinstance(error, TimeoutError) and served.until.expired():
            code, why, reason = GOING_AWAY, served.why, Reason.BUSY
        else:
            log(logger, "failed", level=logging.ERROR, exc_info=True, session=session.name)
            code, why, reason = INTERNAL_ERROR, INTERNAL, Reason.INTERNAL
        if served.opening:
            code = TRY_AGAIN_LATER if code == GOING_AWAY else code
            await self._refuse(session, channel, Refused(why, code, reason))
            return
        if reason is Reason.INTERNAL:
            self.metrics.failed(reason)
        log(logger, "ended", session=session.name, why=why)
        with contextlib.suppress(ClientGone):
            await channel.close(code, why)
