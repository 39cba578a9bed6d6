"""Servers that say what a test wants: public ones, broken ones, and those that come and go."""

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from positronic.offboard import wire
from positronic.offboard.client import InferenceClient
from positronic.offboard.serving.process import bind

Refusal = tuple[int, str]
Script = Callable[[ServerConnection], None]

READY = {"status": "ready", "meta": {"type": "old", "port": 1}}
OURS: dict[str, Any] = {"type": "act", "checkpoint_id": "010000", "request_ids": True, "jpeg": True}


@contextlib.contextmanager
def speaking(
    *scripts: Script,
    port: int = 0,
    answers: Sequence[Refusal] = (),
    context: ssl.SSLContext | None = None,
) -> Iterator[int]:
    """Run a server whose n-th connection goes by the n-th script, later ones by the last.

    Args:
        scripts: What it says.
        port: Where it listens.
        answers: HTTP statuses and reasons that the first connections get instead.
        context: Makes it speak TLS.
    """
    connections = iter(range(10**6))
    handshakes = iter(answers)

    def handler(connection: ServerConnection) -> None:
        with contextlib.suppress(Exception):
            scripts[min(next(connections), len(scripts) - 1)](connection)

    def process_request(connection: ServerConnection, request: Request) -> Response | None:
        answer = next(handshakes, None)
        if answer is None:
            return None
        return connection.respond(answer[0], answer[1] + "\n")

    with serve(handler, "127.0.0.1", port, ssl=context, process_request=process_request) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.socket.getsockname()[1]
        finally:
            server.shutdown()
            thread.join(10)
            assert not thread.is_alive()


def say(connection: ServerConnection, *messages: Any) -> None:
    for message in messages:
        connection.send(wire.pack(message))


def say_ready(connection: ServerConnection, **meta: Any) -> None:
    say(connection, {"status": "ready", "meta": {**OURS, **meta}})


def hear(connection: ServerConnection) -> Any:
    frame = connection.recv(timeout=20)
    assert isinstance(frame, bytes)
    return wire.unpack(frame)


def reply(connection: ServerConnection, number: int, *actions: Any, **more: Any) -> None:
    outcome = {} if "error" in more else {"result": list(actions)}
    say(connection, {"request_id": number, **outcome, **more})


def client(port: int, **options: Any) -> InferenceClient:
    return InferenceClient(
        "127.0.0.1", port, **{"connect_timeout": 0.6, "reconnect_timeout": 0.6, **options}
    )


def free_port() -> int:
    with contextlib.closing(bind("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
