"""Runs the real server in a thread, and speaks with it as the oldest public client does."""

import asyncio
import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from websockets.sync.client import ClientConnection, connect

from positronic.offboard import wire
from positronic.offboard.models.batching import Batching
from positronic.offboard.models.store import ModelStore
from positronic.offboard.serving.limits import ServerOptions
from positronic.offboard.serving.process import bind
from positronic.offboard.serving.server import Extra, serve_forever
from tests.positronic.offboard.small_models import NBYTES, Source
from tests.waiting import until


@contextlib.contextmanager
def serving(
    source: Source,
    default: str = "010000",
    *,
    memory_bytes: int = 10 * NBYTES,
    batching: Batching = Batching(),  # noqa: B008
    wait: bool = True,
    port: int = 0,
    extras: Sequence[tuple[socket.socket, Extra]] = (),
    watch_interval_s: float = 0.0,
    **options: Any,
) -> Iterator[int]:
    """Yield the port of a server of ``source``, once its default is loaded, or at once."""
    listener = bind("127.0.0.1", port)
    port = listener.getsockname()[1]
    box: dict[str, Any] = {}
    started, is_ready = threading.Event(), threading.Event()

    async def main() -> None:
        box["loop"], box["task"] = asyncio.get_running_loop(), asyncio.current_task()
        started.set()
        store = ModelStore(source, default, memory_bytes=memory_bytes, batching=batching)
        with contextlib.suppress(asyncio.CancelledError):
            await serve_forever(
                store,
                listener,
                "127.0.0.1",
                lambda model: is_ready.set(),
                options=ServerOptions(**{"rate_limit": 0, **options}),
                watch_interval_s=watch_interval_s,
                extras=extras,
            )

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        assert started.wait(20)
        assert not wait or is_ready.wait(20)
        yield port
    finally:
        for gate in source.gates.values():
            gate.set()
        box["loop"].call_soon_threadsafe(box["task"].cancel)
        thread.join(20)
        assert not thread.is_alive()


@contextlib.contextmanager
def held(source: Source) -> Iterator[threading.Event]:
    """Let the only model predict nothing until the event is set."""
    (policy,) = source.living
    release, predict = threading.Event(), policy.predict

    def wait(requests: Sequence[Any]) -> list[float]:
        policy.entered.release()
        assert release.wait(20)
        return predict(requests)

    policy.predict = wait  # type: ignore[method-assign]
    try:
        yield release
    finally:
        release.set()
        policy.predict = predict  # type: ignore[method-assign]


def until_draining(port: int) -> None:
    """Wait until the server has seen the signal."""
    until(lambda: get(port, "/readyz")[0] != 200, "the server to drain after a signal")


def get(port: int, path: str, headers: Mapping[str, str] = {}) -> tuple[int, Any]:
    """GET over HTTP: the status, and the JSON document or the bytes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", path, headers=dict(headers))
        response = connection.getresponse()
        body = response.read()
        is_json = response.headers.get_content_type() == "application/json"
        return response.status, json.loads(body) if is_json else body


def raw(port: int, path: str = "/api/v1/session", **options: Any) -> ClientConnection:
    opening: ClientConnection = connect(f"ws://127.0.0.1:{port}{path}", proxy=None, **options)
    return opening


def receive(connection: ClientConnection) -> dict[str, Any]:
    frame = connection.recv(timeout=20)
    assert isinstance(frame, bytes), "every frame is binary"
    message = wire.unpack(frame)
    assert isinstance(message, dict)
    return message


def ready(connection: ClientConnection) -> dict[str, Any]:
    """Read the handshake to its end, as the oldest public client does; return the meta."""
    message = after_loading(connection)
    assert message["status"] == "ready", message
    return dict(message["meta"])


def after_loading(connection: ClientConnection) -> dict[str, Any]:
    """Read what follows the words about loading; they may not go on for more than a minute."""
    deadline = time.monotonic() + 60
    while (message := receive(connection))["status"] in ("loading", "waiting"):
        assert isinstance(message["message"], str)
        assert time.monotonic() < deadline, f"after a minute the server still says {message}"
    return message


def ask(connection: ClientConnection, **obs: Any) -> dict[str, Any]:
    connection.send(wire.pack(obs))
    return receive(connection)
