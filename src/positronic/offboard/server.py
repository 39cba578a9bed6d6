"""The inference server: ``GET /api/v1/models`` and ``WS /api/v1/session[/{checkpoint_id}]``.

It knows nothing of what a model is; :class:`~positronic.offboard.store.ModelSource` does.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

import uvicorn
from fastapi import FastAPI, WebSocket

from positronic.offboard.connection import Connection
from positronic.offboard.store import ModelStore
from positronic.policy.base import Policy

logger = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
SHUTDOWN_S = 5


def make_app(store: ModelStore, server_meta: Mapping[str, Any]) -> FastAPI:
    """Build the ASGI application.

    Args:
        store: The models.
        server_meta: Added to the meta of every ready message.
    """
    app = FastAPI(title="positronic inference", openapi_url=None)
    # One thread: inference of all sessions takes turns, in the order in which it was asked for.
    executor = ThreadPoolExecutor(1, "inference")

    @app.get("/api/v1/models")
    def models() -> dict[str, list[str]]:
        try:
            return {"models": store.source.ids()}
        except OSError:
            logger.exception("cannot list the checkpoints")
            return {"models": []}

    @app.websocket("/api/v1/session")
    async def default_session(websocket: WebSocket) -> None:
        await Connection(websocket, store, executor, server_meta).run(None)

    @app.websocket("/api/v1/session/{checkpoint_id:path}")
    async def session(websocket: WebSocket, checkpoint_id: str) -> None:
        await Connection(websocket, store, executor, server_meta).run(checkpoint_id)

    return app


def server_meta(host: str, port: int) -> dict[str, Any]:
    """Describe the server, for the ready message: the ``host`` as given, and the real ``port``."""
    return {
        "host": host,
        "port": port,
        "compress_images": False,
        "positronic_version": version("positronic-lightning"),
    }


class Server(uvicorn.Server):
    """Ends with status 0 on SIGTERM and Ctrl-C, which is how a server is meant to be stopped."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on a signal without raising it again afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


async def serve_forever(
    store: ModelStore, listener: socket.socket, host: str, on_ready: Callable[[Policy], None]
) -> bool:
    """Serve until a signal comes; clients that connect while the default model loads are told so.

    Args:
        store: The models.
        listener: Where it listens; see `positronic.offboard.listen.bind`.
        host: The host to tell clients.
        on_ready: Called with the default model once it is warm.

    Returns:
        Whether all work has ended; False if a load still runs in its thread.

    Raises:
        PositronicError: The default model cannot be loaded.
    """
    app = make_app(store, server_meta(host, listener.getsockname()[1]))
    server = Server(
        uvicorn.Config(
            app,
            ws="websockets-sansio",
            ws_max_size=MAX_MESSAGE_BYTES,
            # Images do not compress; deflate costs eleven times the round trip.
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
    )
    loading = asyncio.create_task(store.get(store.default))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await asyncio.wait({loading, serving}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done() and not loading.exception():
            on_ready(loading.result())
        elif loading.done():
            server.should_exit = True
        # Shielded, so that whoever cancels this gets an orderly end: connections told, port closed.
        await asyncio.shield(serving)
        if loading.done():
            loading.result()
    finally:
        server.should_exit = True
        loading.cancel()
        store.close()
        await serving
        listener.close()
    return store.loading is None
