"""Attacks on a server: messages of a session, and connections of all kinds."""

import io
import socket
import struct
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
from PIL import Image

from positronic.offboard import wire
from tests.positronic.offboard.faults.mutations import JPEG, marker
from tests.positronic.offboard.faults.sockets import UPGRADE, open_session, open_socket, read_to_end

LIMIT = 16 << 20
LONG = LIMIT - 10_000
STATUS = b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n"


def _array(dtype: Any, shape: Any, data: Any = b"") -> dict[bytes, Any]:
    return {b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": shape}


def _black(size: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((size, size, 3), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def _many_scans() -> bytes:
    """A JPEG of 8 million pixels with thousands of scans, each a pass over all of them."""
    whole = bytearray(_black(8))
    size = whole.index(b"\xff\xc0") + 5
    whole[size : size + 4] = (2896).to_bytes(2, "big") * 2
    scan = bytes((0xFF, 0xDA, 0, 8, 1, 1, 0, 0, 63, 0, 0))
    return bytes(whole[: whole.index(b"\xff\xda")]) + scan * 3000 + b"\xff\xd9"


def _colliding() -> bytes:
    """A map whose keys are long doubles just above 2**63, all of which have the same hash."""
    packer = msgpack.Packer()
    keys = [
        packer.pack({b"__npgeneric__": True, b"data": 2**63 + 2**12 * n, b"dtype": "<f16"})
        for n in range(2000)
    ]
    head: bytes = packer.pack_map_header(len(keys))
    return head + b"".join(key + b"\x01" for key in keys)


# What messages within the size that is allowed say, each as dear as it can be made; and frames that
# nobody packs. Made one by one: all of them take hundreds of megabytes.
_VALUES: dict[str, Callable[[], Any]] = {
    "a key of 16 MB": lambda: {"x" * LONG: 1},
    "a key of 16 MB of spaces": lambda: {" " * LONG: 1},
    "a key of 16 MB of control characters": lambda: {"\x1b" * LONG: 1},
    "a key of 16 MB that is no text": lambda: {b"\0" * LONG: 1},
    "4000 keys of 4 kB": lambda: {f"{i:04}" + "x" * 4000: 1 for i in range(4000)},
    "a task of 16 MB": lambda: {"task": "\u202e" * (LONG // 3)},
    "a hundred thousand maps": lambda: [[{} for _ in range(4000)] for _ in range(24)],
    "thousands of tiny arrays": lambda: [
        [_array("<f4", [0]) for _ in range(1200)] for _ in range(15)
    ],
    "a dtype of 16 MB": lambda: {"grip": _array("<U" + "1" * LONG, [0])},
    "a dtype that is no text": lambda: {"grip": _array(b"\0" * LONG, [0])},
    "a product of 4000 numbers": lambda: {"grip": _array("<f4", [2**63] * 4000)},
    "a shape of 16 MB": lambda: {"grip": _array("<f4", [b"\0" * LONG])},
    "a scalar of 16 MB": lambda: {
        "grip": {b"__npgeneric__": True, b"data": b"\0" * LONG, b"dtype": "<f4"}
    },
    "a request id of 16 MB": lambda: {"request_id": b"\0" * LONG, "observation": {}},
    "a black image of 8 million pixels": lambda: {
        "request_id": 1,
        "observation": {"image.wrist": marker([_black(2896)])},
    },
    "a JPEG of four million segments": lambda: {
        "grip": marker([JPEG[:2] + b"\xff\xe0\x00\x02" * (5 << 18) + JPEG[2:]])
    },
    "a JPEG with 5 MB of filling": lambda: {
        "grip": marker([JPEG[:2] + b"\xff" * (5 << 20) + JPEG[2:]])
    },
    "a JPEG of 3000 scans": lambda: {"grip": marker([_many_scans()])},
    "thousands of JPEGs": lambda: {"grip": marker([JPEG] * 4000, 4)},
}
_FRAMES: dict[str, Callable[[], bytes]] = {
    "thousands of keys of the same hash": _colliding,
    "a list of 16 million": lambda: b"\xdd" + LONG.to_bytes(4, "big") + b"\xc0" * LONG,
    "lists nested 16 million deep": lambda: b"\x91" * LONG + b"\xc0",
}
MESSAGES = (*_VALUES, *_FRAMES)


def message(name: str) -> bytes:
    """Return the frame of one of ``MESSAGES``."""
    return _FRAMES[name]() if name in _FRAMES else wire.pack(_VALUES[name]())


def head(*lines: bytes, target: bytes = b"/livez", method: bytes = b"GET") -> bytes:
    return b"\r\n".join((method + b" " + target + b" HTTP/1.1", *lines, b"", b""))


def websocket_head(*lines: bytes, host: bytes = b"localhost", method: bytes = b"GET") -> bytes:
    ours = UPGRADE.split(b"\r\n")[2:-2]
    return head(b"Host: " + host, *ours, *lines, target=b"/api/v1/session", method=method)


HOST = b"Host: localhost"
# What is sent on a connection of its own, and the status that it is answered with.
REQUESTS: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 408),
    "half a head": (head(HOST)[:-4], 408),
    "a head without an end": (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000, 431),
    "128 headers": (head(HOST, *[b"X: y"] * 128), 431),
    "sixteen kB of empty headers": (head(HOST, *[b"a:"] * 4000), 431),
    "a header of 9 kB": (head(HOST, b"X: " + b"y" * 9000), 431),
    "an upgrade with a header of 9 kB": (websocket_head(b"X: " + b"y" * 9000), 431),
    "an upgrade with 129 headers": (websocket_head(*[b"X: y"] * 129), 431),
    "an upgrade that is a POST": (websocket_head(method=b"POST"), 405),
    "an upgrade with a key that is none": (websocket_head(b"Sec-WebSocket-Key: x"), 400),
    "a path of 9 kB": (head(HOST, target=b"/" + b"a" * 9000), 431),
    "a body that never comes": (head(HOST, b"Content-Length: 1000"), 413),
    "a body in chunks that never come": (head(HOST, b"Transfer-Encoding: chunked"), 413),
    "a body of a size that is no number": (head(HOST, b"Content-Length: -1"), 413),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "no host": (head(), 400),
    "two hosts": (head(HOST, b"Host: evil.example"), 400),
    "a host that is none": (head(b"Host: http://["), 400),
    "a host with quotes": (head(b'Host: a"b'), 400),
    "a second request that never ends": (head(HOST) + b"GET /", 200),
}
# The same where nobody has to know a token.
OPEN_REQUESTS: dict[str, tuple[bytes, int]] = {
    "the name of another site": (head(b"Host: evil.example:8000", target=b"/metrics"), 403),
    "a session by the name of another site": (websocket_head(host=b"evil.example"), 403),
    "a name that begins like an address": (head(b"Host: 127.0.0.1.evil.example"), 403),
    "a name that begins like localhost": (head(b"Host: localhost.evil.example"), 403),
    "an origin that is none": (websocket_head(b"Origin: http://["), 403),
    "the origin null": (websocket_head(b"Origin: null"), 403),
    "the origin of another site": (websocket_head(b"Origin: http://evil.example"), 403),
}


def answer(port: int, request: bytes) -> tuple[int, bytes]:
    """Send it, keep the connection open, and read to the end that the server makes."""
    with open_socket(port) as opened:
        opened.sendall(request)
        received = read_to_end(opened)
    status = received.split(b" ", 2)[1] if received.startswith(b"HTTP/1.1 ") else b"0"
    return int(status), received.partition(b"\r\n\r\n")[2]


def _frames(frame: bytes, opened: socket.socket, times: int = 2000) -> None:
    """Send 100 MB of one frame, or as much as the server takes."""
    block = frame * (50_000 // len(frame))
    try:
        for _ in range(times):
            opened.sendall(block)
    except OSError:
        pass


def small_frames(name: str) -> Callable[[socket.socket], None]:
    """Give what floods a session with frames of one kind."""
    frame = {
        "fragments of one byte": b"\x00\x81\0\0\0\0x",
        "fragments of no bytes": b"\x00\x80\0\0\0\0",
        "pings": b"\x89\x80\0\0\0\0",
        "pongs": b"\x8a\x80\0\0\0\0",
        "messages of one byte": b"\x82\x81\0\0\0\0x",
        "messages of text": b"\x81\x81\0\0\0\0x",
    }[name]

    def flood(opened: socket.socket) -> None:
        if frame[0] == 0:
            opened.sendall(b"\x02\x80\0\0\0\0")  # the first of many fragments
        _frames(frame, opened)

    return flood


FLOODS = (
    "fragments of one byte",
    "fragments of no bytes",
    "pings",
    "pongs",
    "messages of one byte",
    "messages of text",
)


def unfinished(port: int, size: int = LONG) -> socket.socket:
    """Open a session, and send all of a message but its last byte."""
    opened = open_session(port)
    opened.sendall(b"\x82\xff" + struct.pack("!Q", size) + bytes(4))
    part = bytes(1 << 20)
    try:
        for at in range(0, size - 1, len(part)):
            opened.sendall(part[: size - 1 - at])
    except OSError:
        pass  # refused before all of it was there
    return opened


def close_code(received: bytes) -> tuple[int, str]:
    """Find the close frame at the end of what a server has sent: its code and its reason."""
    for at in range(len(received) - 4, -1, -1):
        if received[at] == 0x88 and received[at + 1] == len(received) - at - 2:
            return struct.unpack("!H", received[at + 2 : at + 4])[0], received[at + 4 :].decode()
    return 0, ""
