"""Taking a TCP port, before anything heavy is imported: what is wrong with it is known at once."""

import errno
import socket

from positronic.errors import SessionError


def bind(host: str, port: int) -> socket.socket:
    """Listen on a TCP port; 0 takes a free one.

    Raises:
        SessionError: The port is in use, or the host is no address of this machine.
    """
    where = f"{host}:{port}"
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(128)
        except BaseException:
            listener.close()
            raise
        return listener
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise SessionError(
                f"port {port} of {host} is in use; stop what runs there, or choose another one"
                " with --port (0 takes a free one)"
            ) from error
        raise SessionError(f"cannot listen on {where}: {error}; see --host and --port") from error
