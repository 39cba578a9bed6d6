"""Refuses connections that leave this machine, and notes them: for programs that tests start.

Python imports it at start where ``PYTHONPATH`` names its folder; ``REFUSED`` names the notes' file.
"""

import os
import sys
from typing import Any

LOCAL = ("127.", "localhost", "::1", "0.0.0.0", "::")
NAMES = {None, "", b"", os.uname().nodename}


def _guard(event: str, args: tuple[Any, ...]) -> None:
    if event == "socket.getaddrinfo":
        host = args[0]
    elif event in ("socket.connect", "socket.sendto") and isinstance(args[1], tuple):
        host = args[1][0]
    else:
        return
    name = host.decode() if isinstance(host, bytes) else host
    if host in NAMES or str(name).startswith(LOCAL):
        return
    with open(os.environ["REFUSED"], "a") as file:
        file.write(f"{event} {args[0] if event == 'socket.getaddrinfo' else args[1]} {sys.argv}\n")
    raise OSError(f"a test refuses to leave this machine for {name}")


sys.addaudithook(_guard)
