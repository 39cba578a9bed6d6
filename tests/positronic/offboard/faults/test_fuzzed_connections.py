"""Bytes that are no WebSocket, or none of a session: the connection ends, and nothing else does."""

import random
import socket
import struct
from collections.abc import Iterator

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from positronic.offboard import wire
from tests.positronic.offboard.faults.mutations import JPEG
from tests.positronic.offboard.faults.process import FEW_OBJECTS, MIB, Neighbour, ServerProcess
from tests.positronic.offboard.faults.sockets import (
    UPGRADE,
    binary,
    open_session,
    open_socket,
    read_to_end,
)
from tests.positronic.offboard.running import ask, get, raw, ready, receive

LIMIT = 16 * MIB
REQUEST = wire.pack({"grip": 1.0})


def upgrades(seed: int, count: int) -> Iterator[bytes]:
    """Mutated upgrade requests."""
    rng = random.Random(seed)
    lines = UPGRADE.split(b"\r\n")[:-2]
    strange = [b"GET / HTTP/1.1", b"POST /api/v1/session HTTP/1.1", b"GET /api/v1/session HTTP/9"]
    strange += [b"GET /api/v1/session/" + b"%00%ff%0a" * 50 + b" HTTP/1.1", b"Host: " + b"a" * 9000]
    strange += [b"GET /api/v1/session/../../etc HTTP/1.1", b"Content-Length: 99999999999"]
    strange += [b"Transfer-Encoding: chunked", b"Sec-WebSocket-Key: short", b"Expect: 100-continue"]
    strange += [b"Sec-WebSocket-Version: 99", b"Authorization: Bearer \xff\xfe", b": no name"]
    strange += [b"Sec-WebSocket-Protocol: a, , b", b"Upgrade: h2c", b"\x16\x03\x01\x02\x00\x01\x00"]
    for _ in range(count):
        kind = rng.randrange(4)
        request = bytearray(UPGRADE)
        if kind == 0:
            for _ in range(rng.randrange(1, 6)):
                request[rng.randrange(len(request))] = rng.randrange(256)
        elif kind == 1:
            chosen = list(lines)
            chosen[rng.randrange(len(chosen))] = rng.choice(strange)
            request = bytearray(b"\r\n".join([*chosen, b"", b""]))
        elif kind == 2:
            chosen = [rng.choice([*lines, *strange]) for _ in range(rng.randrange(1, 12))]
            request = bytearray(b"\r\n".join([rng.choice([lines[0], *strange]), *chosen, b"", b""]))
        else:
            request = bytearray(rng.randbytes(rng.randrange(1, 400)) + b"\r\n\r\n")
        yield bytes(request)


def websocket_bytes(seed: int, count: int) -> Iterator[bytes]:
    """Frames that are broken as WebSocket frames, among good ones."""
    rng = random.Random(seed)
    good = binary(REQUEST)
    strange = [
        Frame(Opcode.TEXT, b"\xff\xfe").serialize(mask=True),
        Frame(Opcode.CONT, b"x").serialize(mask=True),
        Frame(Opcode.BINARY, REQUEST, fin=False).serialize(mask=True) + good,
        b"\xc2" + good[1:],  # compressed, which was not agreed on
        Frame(Opcode.BINARY, REQUEST).serialize(mask=False),
        Frame(Opcode.PING, b"").serialize(mask=True) * 500,
        Frame(Opcode.PONG, b"unasked").serialize(mask=True) * 20,
        Frame(Opcode.CLOSE, b"").serialize(mask=True) + good,
        Frame(Opcode.CLOSE, b"\x03").serialize(mask=True),
        Frame(Opcode.CLOSE, struct.pack("!H", 9999)).serialize(mask=True),
        Frame(Opcode.CLOSE, struct.pack("!H", 1000) + b"\xff").serialize(mask=True),
        b"\x89\xfe\x01\x00" + bytes(4 + 256),  # a ping longer than a control frame may be
        b"\x82\xff" + struct.pack("!Q", 2**63 - 1) + bytes(4),
        b"\x82\xff" + struct.pack("!Q", 2**64 - 1) + bytes(100),
        b"\x82\xfe" + struct.pack("!H", 5) + bytes(9),  # a longer length than was needed
        b"\x83\x80" + bytes(4),  # an opcode that does not exist
    ]
    for _ in range(count):
        if rng.random() < 0.5:
            frame = bytearray(good)
            for _ in range(rng.randrange(1, 4)):
                frame[rng.randrange(min(len(frame), 10))] = rng.randrange(256)
            middle = bytes(frame)
        else:
            middle = rng.choice([*strange, rng.randbytes(60)])
        yield good * rng.randrange(3) + middle + good * rng.randrange(3)


def finish(opened: socket.socket, data: bytes) -> bytes:
    """Send, say that no more comes, and read to the end, which the server makes."""
    try:
        opened.sendall(data)
        opened.shutdown(socket.SHUT_WR)
    except (BrokenPipeError, ConnectionResetError):
        pass  # refused before all of it was there
    except OSError as error:
        if error.errno != 107:  # not connected any more
            raise
    return read_to_end(opened)


def send_all(server: ServerProcess, requests: Iterator[bytes]) -> list[bytes]:
    """Send each on a connection of its own; give what came back."""
    answers = []
    for request in requests:
        with open_socket(server.port) as opened:
            answers.append(finish(opened, request))
    return answers


def test_fuzzed_upgrades_are_refused_and_the_neighbour_goes_on(server: ServerProcess) -> None:
    # What is imported or allocated once is there before it is counted.
    send_all(server, upgrades(1, 100))
    get(server.port, "/")
    server.assert_lives()
    before = server.holdings()
    with Neighbour(server.port):
        answers = send_all(server, upgrades(0, 600))
    server.wait_for_files(before.files)
    server.assert_lives()
    grown = server.holdings().more_than(before)
    assert sum(grown.values()) < FEW_OBJECTS, grown
    refused = [answer for answer in answers if not answer.startswith(b"HTTP/1.1 101")]
    assert len(refused) > 400
    assert not [answer for answer in answers if b" 500 " in answer[:20]]
    assert not [answer for answer in answers if b"Traceback" in answer]


def test_fuzzed_websocket_bytes_end_their_own_connection_only(server: ServerProcess) -> None:
    server.assert_lives()
    before = server.holdings()
    with Neighbour(server.port):
        for data in websocket_bytes(0, 400):
            with open_session(server.port) as opened:
                assert b"Traceback" not in finish(opened, data)
    server.wait_for_files(before.files)
    server.assert_lives()
    grown = server.holdings().more_than(before)
    assert sum(grown.values()) < FEW_OBJECTS, grown


@pytest.mark.parametrize("size", [LIMIT + 1, 2**32, 2**63 - 1])
def test_a_frame_that_declares_more_than_the_limit_is_refused_before_it_comes(
    server: ServerProcess, size: int
) -> None:
    before = server.peak
    with Neighbour(server.port), open_session(server.port) as opened:
        opened.sendall(b"\x82\xff" + struct.pack("!Q", size) + bytes(4))
        # 1009, "message too big", comes with nothing but the header sent.
        assert struct.pack("!H", 1009) in read_to_end(opened)
    server.assert_lives()
    assert server.peak - before < MIB


def test_fragments_that_exceed_the_limit_together_are_refused(server: ServerProcess) -> None:
    part = bytes(2 * MIB)
    first = Frame(Opcode.BINARY, part, fin=False).serialize(mask=True)
    more = Frame(Opcode.CONT, part, fin=False).serialize(mask=True)
    with Neighbour(server.port), open_session(server.port) as opened:
        opened.sendall(first)
        for _ in range(7):
            opened.sendall(more)
        assert struct.pack("!H", 1009) in finish(opened, more)
    server.assert_lives()


def test_a_message_just_within_the_limit_is_answered_and_its_memory_given_back(
    server: ServerProcess,
) -> None:
    padding = bytes(LIMIT - 200)
    with raw(server.port) as session, Neighbour(server.port):
        ready(session)
        for _ in range(4):
            assert ask(session, grip=1, data=padding)["result"]
        before = server.holdings().resident
        for _ in range(12):
            assert ask(session, grip=1, data=padding)["result"]
        # The allocator may keep one for each of its arenas.
        assert server.holdings().resident - before < 3 * LIMIT
        with pytest.raises(ConnectionClosed) as closed:
            ask(session, grip=1, data=bytes(LIMIT))
        assert closed.value.rcvd is None or closed.value.rcvd.code == 1009
    server.assert_lives()


def test_text_frames_are_answered_as_malformed_and_the_session_stays(
    server: ServerProcess,
) -> None:
    with raw(server.port) as session, Neighbour(server.port):
        ready(session)
        for text in ("", "{}", '{"grip": 1}', "é" * 1000, "\0", JPEG.hex()):
            session.send(text)
            assert "binary" in receive(session)["error"]
        assert ask(session, grip=1)["result"]
