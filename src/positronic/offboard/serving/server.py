"""Inference server process: its port, its signals, its start and its shutdown.

It knows nothing of what a model is; :class:`~positronic.offboard.models.store.ModelSource` does.
"""

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from foundation.stopping import Received, leave_lost_streams, stop_signals
from positronic.offboard.models.model import Model
from positronic.offboard.models.store import ModelStore
from positronic.offboard.models.watch import watch
from positronic.offboard.serving.app import make_app
from positronic.offboard.serving.handshake import server_meta
from positronic.offboard.serving.limits import Connections, ServerOptions
from positronic.offboard.serving.logs import log
from positronic.offboard.serving.service import Service
from positronic.offboard.serving.transport import protocols

__all__ = ["serve_forever"]

logger = logging.getLogger(__name__)

SHUTDOWN_S = 5
# Connections that are accepted before the others have their turn, each in some 100 µs; and those
# that may wait for it.
ACCEPTED_AT_ONCE, WAITING_CONNECTIONS = 16, 256
Extra = Callable[[Service], ASGIApp]


async def serve_forever(
    store: ModelStore,
    listener: socket.socket,
    host: str,
    on_ready: Callable[[Model], None],
    *,
    options: ServerOptions = ServerOptions(),  # noqa: B008
    watch_interval_s: float = 0.0,
    extras: Sequence[tuple[socket.socket, Extra]] = (),
) -> None:
    """Serve until a signal comes; clients that connect while the default model loads are told so.

    The first SIGTERM, SIGINT or SIGHUP drains the server, unless it is not ready yet; another ends
    it, but no second SIGHUP, of which a closed terminal sends several.

    Args:
        store: The models.
        listener: Where it listens; see `positronic.offboard.serving.server.bind`.
        host: The host to tell clients.
        on_ready: Called with the default model once it is warm.
        options: The limits.
        watch_interval_s: Seconds between two looks for a newer default model; 0: never.
        extras: Other applications on the same sessions, each with where it listens.

    Raises:
        FoundationError: The default model cannot be loaded.
    """
    # glibc keeps freed memory for the next message only up to the largest block freed so far. Else,
    # as chance has it, each message of 300 kB may take 100 page faults: 0.25 ms.
    bytes(options.max_message_bytes)
    # Not asyncio's own, for which the end of the loop would wait: a bucket may not answer.
    listing = ThreadPoolExecutor(4, "listing")
    asyncio.get_running_loop().set_default_executor(listing)
    service = Service(store, options, server_meta(host, listener.getsockname()[1]))
    apps: list[tuple[socket.socket, ASGIApp]] = [(listener, make_app(service))]
    apps += [(where, make(service)) for where, make in extras]
    shared = Connections(options)
    servers = [(_Server(_config(app, options, shared)), where) for where, app in apps]
    with _signals() as (stop, end_now):
        serving = asyncio.gather(*(server.serve(sockets=[where]) for server, where in servers))
        warming, stopped = (
            asyncio.create_task(_warm(store, on_ready)),
            asyncio.create_task(stop.wait()),
        )
        try:
            await _first(warming, stopped, serving)
            if warming.done():
                warming.result()
                with _watching(store, watch_interval_s):
                    await _first(stopped, serving)
                draining = asyncio.create_task(service.drain(options.drain_timeout_s))
                ending = asyncio.create_task(end_now.wait())
                await _first(draining, ending)
                draining.cancel()
                ending.cancel()
        finally:
            # Whoever cancels this gets an orderly end too: sessions told, port closed.
            await service.drain(0)
            warming.cancel()
            stopped.cancel()
            for server, _ in servers:
                server.should_exit, server.force_exit = True, end_now.is_set()
            await serving
            store.close()
            service.close()
            listing.shutdown(wait=False, cancel_futures=True)
            for where, _ in apps:
                where.close()


async def _first(*work: "asyncio.Future[Any]") -> None:
    await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)


async def _warm(store: ModelStore, on_ready: Callable[[Model], None]) -> None:
    # Not returned: the task outlives the model, once another one is the default.
    lease = await store.acquire_default()
    lease.release()
    on_ready(lease.model)


@contextlib.contextmanager
def _watching(store: ModelStore, interval_s: float) -> Iterator[None]:
    """Take up new models meanwhile."""
    task = asyncio.create_task(watch(store, interval_s, _changed)) if interval_s else None
    try:
        yield
    finally:
        if task is not None:
            task.cancel()


def _changed(model_id: str | None, error: Exception | None) -> None:
    if error is None:
        log(logger, "new default", model=model_id)


class _Server(uvicorn.Server):
    """Leaves signals to those who know of the sessions, and lets more connections wait."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept connections."""
        await super().startup(sockets)
        for where in sockets or ():
            where.listen(WAITING_CONNECTIONS)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def _config(app: ASGIApp, options: ServerOptions, shared: Connections) -> uvicorn.Config:
    http, websocket = protocols(options, shared)
    return uvicorn.Config(
        app,
        http=http,
        ws=websocket,
        ws_max_size=options.max_message_bytes,
        ws_ping_interval=options.ping_interval_s,
        ws_ping_timeout=options.ping_timeout_s,
        # Images do not compress; deflate costs eleven times the round trip.
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=ACCEPTED_AT_ONCE,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )


@contextlib.contextmanager
def _signals() -> Iterator[tuple[asyncio.Event, asyncio.Event]]:
    """Yield two events: the first signal to stop, and a second one that repeats it."""
    first, second = asyncio.Event(), asyncio.Event()
    received = Received()

    def on_signal(number: int) -> None:
        leave_lost_streams()
        if received.repeats(number):
            second.set()
        first.set()

    if threading.current_thread() is not threading.main_thread():
        yield first, second
        return
    loop = asyncio.get_running_loop()
    numbers = stop_signals()
    for number in numbers:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield first, second
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
