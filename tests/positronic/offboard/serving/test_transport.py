import socket
import time
from typing import Any

import pytest

from positronic.offboard import wire
from tests.positronic.offboard.running import ask, get, raw, ready, receive, serving
from tests.positronic.offboard.small_models import Source

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
    for _ in range(1000):
        document: dict[str, Any] = get(port, "/api/v1/status")[1]
        if len(document["sessions"]) == number:
            return document
        time.sleep(0.01)
    raise AssertionError(f"{len(document['sessions'])} sessions are open, expected {number}")


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
