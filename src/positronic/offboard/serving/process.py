"""Server process: bind the port before heavy imports, and end even if threads hang."""

import asyncio
import errno
import os
import socket
import sys
import threading
import time
from collections.abc import Coroutine
from typing import Any

from positronic.errors import SessionError

__all__ = ["bind", "resolve", "run_to_the_end"]

PATIENCE_S = 0.3


def run_to_the_end(server: Coroutine[Any, Any, None]) -> None:
    """Run a server; at its end, exit with status 0 if threads are still busy.

    A thread that imports torch, predicts or waits for a bucket cannot be interrupted. Closing the
    event loop or the interpreter would wait for it, or crash.
    """

    async def main() -> None:
        await server
        if _still_busy():
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)

    asyncio.run(main())


def _still_busy() -> bool:
    until = time.monotonic() + PATIENCE_S
    own = threading.current_thread()
    others = [thread for thread in threading.enumerate() if thread is not own]
    threads = [thread for thread in others if not thread.daemon]
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return any(thread.is_alive() for thread in threads)


def resolve(host: str) -> str:
    """Return the address that `bind` would listen on, such as ``127.0.0.1``.

    Raises:
        SessionError: The host is unknown.
    """
    try:
        return str(_resolve(host, 0)[1][0])
    except (OSError, UnicodeError) as error:
        raise SessionError(f"cannot listen on {host}: {error}; see --host") from error


def bind(host: str, port: int) -> socket.socket:
    """Listen on a TCP port; 0 takes a free one.

    Raises:
        SessionError: The port is in use, or the host is not an address of this machine.
    """
    try:
        family, address = _resolve(host, port)
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(128)
        except BaseException:
            listener.close()
            raise
        return listener
    except (OSError, OverflowError, UnicodeError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise SessionError(
                f"port {port} of {host} is in use; stop what runs there, or choose another one"
                " with --port (0 takes a free one)"
            ) from error
        raise SessionError(
            f"cannot listen on {host}:{port}: {error}; see --host and --port"
        ) from error


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    if not 0 <= int(port) < 1 << 16:
        raise OSError(errno.EINVAL, "ports are 0 to 65535")  # larger ones would wrap around
    found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    return family, address
