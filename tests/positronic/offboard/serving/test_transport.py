import ast
import inspect
import socket
import time
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.protocols.http import h11_impl
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets import websockets_sansio_impl
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode

from positronic.offboard import wire
from positronic.offboard.serving import transport
from positronic.offboard.serving.limits import Connections, ServerOptions, most_connections
from positronic.offboard.serving.transport import frame_header
from tests.positronic.offboard.running import ask, get, raw, ready, receive, serving
from tests.positronic.offboard.small_models import Source
from tests.waiting import until

UPGRADE = (
    b"GET /api/v1/session HTTP/1.1\r\nHost: localhost\r\n"
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def connection(port: int, **options: int) -> socket.socket:
    """A client whose every byte a test decides on."""
    client = socket.socket()
    for name, value in options.items():
        client.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
    client.settimeout(20)
    client.connect(("127.0.0.1", port))
    return client


def frame(payload: bytes, opcode: int = 2) -> bytes:
    """A masked frame; the mask is zero."""
    size = (
        bytes([0x80 | len(payload)])
        if len(payload) < 126
        else b"\xfe" + len(payload).to_bytes(2, "big")
    )
    return bytes([0x80 | opcode]) + size + bytes(4) + payload


def wait_for_sessions(port: int, number: int) -> dict[str, Any]:
    document: dict[str, Any] = {}

    def are_there() -> bool:
        document.update(get(port, "/api/v1/status")[1])
        return len(document["sessions"]) == number

    until(are_there, f"{number} sessions to be open")
    return document


def is_over(client: socket.socket) -> bool:
    """Read to the end of the connection, which the time-out of the socket bounds."""
    try:
        while client.recv(1 << 16):
            pass
    except ConnectionResetError:
        return True
    return True


def send_often(client: socket.socket, data: bytes, times: int) -> None:
    for _ in range(times):
        client.sendall(data)


def test_a_client_that_does_not_read_is_dropped_and_the_others_go_on() -> None:
    # The ready message is larger than what the kernel takes off the server's hands.
    source = Source(["010000"], padding=bytes(8_000_000))
    with (
        serving(source, send_timeout_s=0.3, ping_interval_s=99) as port,
        raw(port, max_size=None) as good,
    ):
        ready(good)
        with connection(port, SO_RCVBUF=4096) as slow:
            slow.sendall(UPGRADE)
            wait_for_sessions(port, 2)
            assert ask(good, grip=0)["result"]
            wait_for_sessions(port, 1)
            assert is_over(slow)
        assert ask(good, grip=0)["result"]


def test_a_client_that_reads_slowly_gets_everything() -> None:
    source = Source(["010000"], padding=bytes(8_000_000))
    with (
        serving(source, send_timeout_s=5) as port,
        connection(port, SO_RCVBUF=1 << 16) as slow,
        slow.makefile("rb") as stream,
    ):
        slow.sendall(UPGRADE)
        assert b"101 Switching Protocols" in stream.readline()
        while stream.readline().strip():
            pass
        # RFC 6455, 5.2: 64 bits for the size of the first frame, 16 for that of the second.
        assert stream.read(2) == b"\x82\x7f"
        size = int.from_bytes(stream.read(8))
        begun = stream.read(1 << 17)
        # Asked while the server still waits for room to send, and reads nothing.
        slow.sendall(frame(wire.pack({"grip": 0.5})))
        message: Any = wire.unpack(begun + stream.read(size - len(begun)))
        assert message["status"] == "ready"
        assert message["meta"]["padding"] == bytes(8_000_000)
        assert stream.read(2) == b"\x82\x7e"
        answer: Any = wire.unpack(stream.read(int.from_bytes(stream.read(2))))
        assert answer["result"][0]["target_grip"] == 0.5


def test_a_client_that_has_vanished_is_noticed_by_its_silence() -> None:
    source = Source(["010000"])
    pings: dict[str, Any] = {"ping_interval_s": 0.1, "ping_timeout_s": 0.2}
    with serving(source, **pings) as port, raw(port) as lives:
        ready(lives)
        with connection(port) as vanished:
            vanished.sendall(UPGRADE)
            wait_for_sessions(port, 2)
            # It reads nothing any more, so it answers no ping either.
            wait_for_sessions(port, 1)
            assert is_over(vanished)
        assert ask(lives, grip=0, sleep=0.6)["result"], "while it infers, it still answers pings"
        wait_for_sessions(port, 1)


def test_a_client_that_asks_again_before_it_has_its_answer_is_no_silent_one() -> None:
    pings: dict[str, Any] = {"ping_interval_s": 0.1, "ping_timeout_s": 0.2}
    with serving(Source(["010000"]), **pings) as port, raw(port) as session:
        ready(session)
        for grip in (0.1, 0.2, 0.3):
            session.send(wire.pack({"grip": grip, "sleep": 0.4}))
        for grip in (0.1, 0.2, 0.3):
            assert receive(session)["result"][0]["target_grip"] == grip


def test_a_flood_of_pings_whose_pongs_nobody_reads_is_not_taken_in() -> None:
    source = Source(["010000"])
    with serving(source) as port, connection(port, SO_RCVBUF=4096) as flood:
        flood.sendall(UPGRADE)
        wait_for_sessions(port, 1)
        pings = frame(b"x" * 125, opcode=9) * 1000
        with pytest.raises(ConnectionError):
            send_often(flood, pings, 400)
        wait_for_sessions(port, 0)


def test_a_connection_that_asks_for_nothing_is_dropped() -> None:
    with serving(Source(["010000"]), handshake_timeout_s=0.2) as port:
        with connection(port) as silent:
            assert is_over(silent)
        with connection(port) as slow:
            slow.sendall(UPGRADE[:40])
            assert is_over(slow)
        with raw(port) as session:
            ready(session)
            time.sleep(0.4)
            assert ask(session, grip=0)["result"]


def test_a_client_that_does_not_say_goodbye_is_not_waited_for() -> None:
    limits: dict[str, Any] = {"idle_timeout_s": 0.2, "handshake_timeout_s": 0.2}
    with serving(Source(["010000"]), **limits) as port, connection(port) as rude:
        rude.settimeout(5)
        rude.sendall(UPGRADE)
        wait_for_sessions(port, 1)
        wait_for_sessions(port, 0)
        rude.sendall(frame(wire.pack({"grip": 0})))
        assert is_over(rude)


# What the protocols here use of uvicorn's, none of which its documentation promises: methods that
# are overridden or called with their parameters, then attributes of an instance.
HTTP_METHODS = {
    "_unset_keepalive_if_required": [],
    "connection_lost": ["exc"],
    "connection_made": ["transport"],
    "data_received": ["data"],
    "handle_websocket_upgrade": ["event"],
    "on_response_complete": [],
    "pause_writing": [],
    "shutdown": [],
}
HTTP_ATTRIBUTES = {"client", "connections", "cycle", "headers", "loop", "transport"}
WEBSOCKET_METHODS = {
    "connection_lost": ["exc"],
    "connection_made": ["transport"],
    "data_received": ["data"],
    "handle_parser_exception": [],
    "keepalive_timeout": [],
    "on_task_complete": ["task"],
    "pause_writing": [],
    "receive": [],
    "resume_writing": [],
    "schedule_ping": [],
    "send": ["message"],
    "shutdown": [],
    "stop_keepalive": [],
}
WEBSOCKET_ATTRIBUTES = {
    *("client", "close_sent", "close_timeout", "close_timer", "conn", "disconnected", "frames"),
    *("handshake_complete", "handshake_initiated", "initial_response", "loop"),
    *("pending_ping_payload", "pong_timer", "queue", "read_paused", "transport", "writable"),
}


def used(kind: type) -> set[str]:
    """The names of ``self`` in a class's own source."""
    tree = ast.parse(inspect.getsource(kind))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    } | {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize(
    ("ours", "theirs", "methods", "attributes"),
    [
        (
            transport.HttpProtocol,
            h11_impl.H11Protocol,
            HTTP_METHODS,
            HTTP_ATTRIBUTES,
        ),
        (
            transport.WebSocketProtocol,
            websockets_sansio_impl.WebSocketsSansIOProtocol,
            WEBSOCKET_METHODS,
            WEBSOCKET_ATTRIBUTES,
        ),
    ],
)
def test_what_is_used_of_uvicorn_is_still_there(
    ours: type, theirs: Any, methods: dict[str, list[str]], attributes: set[str]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    config = Config(app, http=h11_impl.H11Protocol, ws=ours, lifespan="off")
    instance = theirs(config, ServerState(), {}, _loop=object())
    for name, parameters in methods.items():
        assert list(inspect.signature(getattr(instance, name)).parameters) == parameters, name
    assert [name for name in attributes if name not in vars(instance)] == []
    assert config.ws_protocol_class is ours
    # The list is whole: what the class uses beside its own is on it.
    foreign = {name for name in used(ours) if hasattr(theirs, name) or name in vars(instance)}
    assert foreign == set(methods) | attributes


def test_what_an_answer_under_way_has_of_uvicorn_is_still_there() -> None:
    source = inspect.getsource(h11_impl.RequestResponseCycle)
    for name in ("keep_alive", "response_complete", "CLOSE_HEADER", 'self.scope["headers"]'):
        assert name in source
    assert issubclass(ClientDisconnected, OSError), "as Starlette expects of a client that left"


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 2**24])
@pytest.mark.parametrize("mask", [False, True])
def test_the_header_of_a_frame_says_where_it_ends(size: int, mask: bool) -> None:
    for opcode, final in ((Opcode.BINARY, True), (Opcode.CONT, False), (Opcode.TEXT, False)):
        whole = Frame(opcode, bytes(size), fin=final).serialize(mask=mask)
        found = frame_header(bytearray(whole[:10]))
        assert found is not None
        kind, ends, before, payload = found
        assert (kind, ends, payload, before + payload) == (opcode, final, size, len(whole))
        cut = before - (4 if mask else 0) - 1
        assert frame_header(bytearray(whole[:cut])) is None


def test_a_handshake_that_the_library_does_not_understand_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Such as are refused before by their size.
    monkeypatch.setattr(transport, "MAX_LINE", 50_000)
    monkeypatch.setattr(transport, "MAX_HEAD", 50_000)
    with serving(Source(["010000"])) as port, connection(port) as opened:
        opened.sendall(UPGRADE[:-2] + b"X: " + b"y" * 9000 + b"\r\n\r\n")
        assert opened.recv(1 << 16).startswith(b"HTTP/1.1 400 ")
        assert is_over(opened)


def test_frames_in_pieces_of_any_size_are_the_same_messages() -> None:
    with serving(Source(["010000"])) as port:
        sent = b"".join(frame(wire.pack({"grip": grip / 8})) for grip in range(8))
        for size in (1, 2, 3, 7, 64, 1000):
            with connection(port) as opened, opened.makefile("rb") as stream:
                opened.sendall(UPGRADE)
                while stream.readline().strip():
                    pass
                for at in range(0, len(sent), size):
                    opened.sendall(sent[at : at + size])
                answers: list[Any] = []
                while len(answers) < 9:
                    assert stream.read(1) == b"\x82"
                    length = stream.read(1)[0]
                    if length == 126:
                        length = int.from_bytes(stream.read(2))
                    answers.append(wire.unpack(stream.read(length)))
            grips = [answer["result"][0]["target_grip"] for answer in answers[1:]]
            assert grips == [grip / 8 for grip in range(8)]


def test_a_client_may_speak_before_it_has_been_let_in() -> None:
    with serving(Source(["010000"])) as port, connection(port) as hasty:
        hasty.sendall(UPGRADE)
        hasty.sendall(frame(wire.pack({"grip": 0.5})))
        wait_for_sessions(port, 1)
        received = b""
        while b"target_grip" not in received:
            part = hasty.recv(1 << 16)
            assert part, received
            received += part


def test_the_oldest_silent_connection_makes_room() -> None:
    connections = Connections(ServerOptions(max_sessions=1))
    connections.most = 3
    dropped: list[str] = []
    for name in "abc":
        assert connections.enter(name, lambda name=name: dropped.append(name))  # type: ignore[misc]
    connections.asked("a")
    assert connections.enter("d", lambda: dropped.append("d"))
    assert dropped == ["b"]
    for name in "cd":
        connections.asked(name)
    assert not connections.enter("e", lambda: dropped.append("e"))
    connections.handed_over("a", "websocket")
    connections.leave("a")
    assert not connections.enter("e", lambda: dropped.append("e"))
    connections.leave("websocket")
    assert connections.enter("e", lambda: dropped.append("e"))
    assert dropped == ["b"]
    # One that has been answered goes before one that is being answered.
    connections.asked("e")
    connections.may_go("c", lambda: dropped.append("c"))
    assert connections.enter("f", lambda: dropped.append("f"))
    assert dropped == ["b", "c"]


def test_the_oldest_unfinished_message_makes_room() -> None:
    connections = Connections(ServerOptions(max_message_bytes=10))
    dropped: list[str] = []

    def holds(name: str, held: int) -> None:
        connections.holds(name, held, lambda: dropped.append(name))

    holds("a", 10)
    for name in "bcdefgh":
        holds(name, 10)
    assert dropped == []
    holds("a", 11)
    assert dropped == ["a"]
    holds("b", 0)
    holds("i", 20)
    assert dropped == ["a"]
    connections.leave("c")
    holds("i", 30)
    assert dropped == ["a"]
    holds("i", 31)
    assert dropped == ["a", "d"]


@pytest.mark.parametrize(
    ("files", "expected"), [(1 << 20, 320), (1024, 320), (400, 272), (256, 128), (64, 32)]
)
def test_there_are_no_more_connections_than_files(files: int, expected: int) -> None:
    assert most_connections(64, files) == expected
