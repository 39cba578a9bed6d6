"""Below the client library: bytes on a TCP connection, and a network that loses its end."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

from websockets.frames import Frame, Opcode

UPGRADE = (
    b"GET /api/v1/session HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n"
)


def binary(data: bytes) -> bytes:
    """One masked frame, as a client sends it."""
    return Frame(Opcode.BINARY, data).serialize(mask=True)


def open_socket(port: int, *, receive_buffer: int | None = None) -> socket.socket:
    opened = socket.socket()
    if receive_buffer is not None:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    opened.settimeout(20)
    opened.connect(("127.0.0.1", port))
    return opened


def open_session(port: int, *, receive_buffer: int | None = None) -> socket.socket:
    """Upgrade, and read until the server is ready; from then on nobody answers its pings."""
    opened = open_socket(port, receive_buffer=receive_buffer)
    opened.sendall(UPGRADE)
    received = b""
    while b"ready" not in received:
        data = opened.recv(4096)
        assert data, received
        received += data
    return opened


def read_to_end(opened: socket.socket) -> bytes:
    """Read until the server has closed its side."""
    received = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while data := opened.recv(65536):
            received += data
    return bytes(received)


def reset(opened: socket.socket) -> None:
    """Close with RST instead of FIN, as a machine does that has forgotten the connection."""
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    opened.close()


class Network:
    """Forwards bytes to a server until it is cut: then nothing arrives, and nothing ends."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._cut = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open = [self._listener]
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                self._open += [client, server]
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._forward, args=ends, daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self._cut.is_set():
                    return
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        self._cut.set()

    def close(self) -> None:
        for opened in self._open:
            opened.close()


@contextlib.contextmanager
def network(port: int) -> Iterator[Network]:
    """Put a network between clients and a server."""
    between = Network(port)
    try:
        yield between
    finally:
        between.close()
