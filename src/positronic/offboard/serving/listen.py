"""Taking a TCP port, before anything heavy is imported: what is wrong with it is known at once."""

import errno
import socket
from typing import Any

from positronic.errors import SessionError


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
        SessionError: The port is in use, or the host is no address of this machine.
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
        raise OSError(errno.EINVAL, "ports are 0 to 65535")  # beyond, others are taken for them
    found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    return family, address
