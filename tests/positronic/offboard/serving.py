"""Runs the real server in a thread, with small policies whose every move a test can follow."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from websockets.sync.client import ClientConnection, connect

from positronic.errors import CheckpointError, CodecError
from positronic.offboard import wire
from positronic.offboard.listen import bind
from positronic.offboard.server import serve_forever
from positronic.offboard.store import ModelStore
from positronic.policy import Action, Policy


class CountingSession:
    """Counts its own observations; a session that shared state would count those of others."""

    def __init__(self, policy: "CountingPolicy") -> None:
        self.policy = policy
        self.meta = policy.meta
        self.count = 0

    def infer(self, obs: Mapping[str, Any]) -> list[Action]:
        if "grip" not in obs:
            raise CodecError(f"needs grip; present: {', '.join(sorted(obs)) or 'nothing'}")
        if obs.get("explode"):
            raise RuntimeError("secret in /home/operator/file.py")
        time.sleep(obs.get("sleep", 0))
        self.count += 1
        commands = {"robot_command": {"type": "reset"}, "target_grip": float(obs["grip"])}
        return [{**commands, "count": self.count, "timestamp": i / 10} for i in range(3)]

    def close(self) -> None:
        self.policy.closed += 1


class CountingPolicy:
    def __init__(self, name: str, meta: Mapping[str, Any] | None = None) -> None:
        self.meta: dict[str, Any] = {
            "type": "counting",
            "checkpoint_id": name,
            "action_fps": 10.0,
            **(meta or {}),
        }
        self.closed = 0

    def new_session(self, context: Mapping[str, Any] | None = None) -> CountingSession:
        return CountingSession(self)

    def close(self) -> None:
        pass


class Source:
    """Models that load when the test lets them; ``broken`` ones do not."""

    def __init__(self, names: list[str], **meta: Any) -> None:
        self.names, self.meta = names, meta
        self.gates: dict[str, threading.Event] = {}
        self.broken: dict[str, Exception] = {}
        self.loads: list[str] = []

    def hold(self, name: str) -> threading.Event:
        return self.gates.setdefault(name, threading.Event())

    def ids(self) -> list[str]:
        if not self.names:
            raise OSError("the disk is gone")
        return self.names

    def resolve(self, requested: str) -> str:
        if requested in self.names:
            return requested
        raise CheckpointError(f"Checkpoint not found: {requested}. Available: {self.names}")

    def load(self, model_id: str) -> Policy:
        self.loads.append(model_id)
        if model_id in self.gates:
            assert self.gates[model_id].wait(20)
        if model_id in self.broken:
            raise self.broken[model_id]
        return CountingPolicy(model_id, self.meta)


@contextlib.contextmanager
def serving(source: Source, default: str = "010000", max_loaded: int = 2) -> Iterator[int]:
    """Yield the port of a server of ``source``."""
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    box: dict[str, Any] = {}
    started = threading.Event()

    async def main() -> None:
        box["loop"], box["task"] = asyncio.get_running_loop(), asyncio.current_task()
        started.set()
        store = ModelStore(source, default, max_loaded)
        with contextlib.suppress(asyncio.CancelledError):
            await serve_forever(store, listener, "127.0.0.1", lambda policy: None)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        assert started.wait(10)
        yield port
    finally:
        for gate in source.gates.values():
            gate.set()
        box["loop"].call_soon_threadsafe(box["task"].cancel)
        thread.join(20)
        assert not thread.is_alive()


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
    while True:
        message = receive(connection)
        if message["status"] == "ready":
            return dict(message["meta"])
        assert message["status"] in ("loading", "waiting"), message
        assert isinstance(message["message"], str)


def ask(connection: ClientConnection, **obs: Any) -> dict[str, Any]:
    connection.send(wire.pack(obs))
    return receive(connection)
