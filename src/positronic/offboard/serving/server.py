"""Inference server process: its port, its signals, its start and its shutdown.

It is independent of the kind of model; see :class:`~positronic.offboard.models.store.ModelSource`.
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
# Connections accepted in one turn of the event loop, each in some 100 µs; and the listen backlog.
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
    """Serve until a stop signal; clients that connect while the default model loads get its status.

    The first SIGTERM, SIGINT or SIGHUP drains the server, unless it is not ready yet; another one
    ends it at once, except a second SIGHUP, of which a closed terminal sends several.

    Args:
        store: The models.
        listener: The listening socket; see `positronic.offboard.serving.server.bind`.
        host: The host that clients are told.
        on_ready: Called with the default model once it is warm.
        options: The limits.
        watch_interval_s: Seconds between two polls for a newer default model; 0: never.
        extras: Further applications on the same service, each with its listening socket.

    Raises:
        FoundationError: The default model cannot be loaded.
    """
    # glibc reuses freed memory only up to the largest block freed so far. Otherwise each message of
    # 300 kB may, by chance, take 100 page faults: 0.25 ms.
    bytes(options.max_message_bytes)
    # Not asyncio's own, which the loop would join at its end: a bucket may not answer.
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
            # Cancellation ends in order too: sessions are told, the port is closed.
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
    log(logger, "stopped")


async def _first(*work: "asyncio.Future[Any]") -> None:
    await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)


async def _warm(store: ModelStore, on_ready: Callable[[Model], None]) -> None:
    # Not returned: the finished task would keep the model alive after another one is the default.
    lease = await store.acquire_default()
    lease.release()
    on_ready(lease.model)


@contextlib.contextmanager
def _watching(store: ModelStore, interval_s: float) -> Iterator[None]:
    """Watch for new models in this context."""
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
    """uvicorn's server without its signal handlers, and with a larger listen backlog."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept connections."""
        await super().startup(sockets)
        for where in sockets or ():
            where.listen(WAITING_CONNECTIONS)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing: `serve_forever` handles the signals."""
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
        # Images do not compress; deflate multiplies the round trip by eleven.
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
    """Yield two events: the first stop signal, and a repeated one."""
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
