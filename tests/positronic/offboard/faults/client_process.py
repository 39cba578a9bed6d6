"""A client at every stage of a session at once, until it is killed; its argument is the PORT."""

import contextlib
import sys
import time

from positronic.offboard import wire
from tests.positronic.offboard.faults.sockets import UPGRADE, binary, open_session, open_socket

REQUEST = binary(wire.pack({"grip": 1.0, "sleep": 0.05, "data": bytes(200_000)}))


def main() -> None:
    port = int(sys.argv[1])
    with contextlib.ExitStack() as stack:
        for at in (0, 2, 7, 100, len(REQUEST) - 1, len(REQUEST)):
            session = stack.enter_context(open_session(port))
            session.sendall(REQUEST[:at])
        for at in (0, 1, 50, len(UPGRADE) - 2, len(UPGRADE)):
            stack.enter_context(open_socket(port)).sendall(UPGRADE[:at])
        print("everything is sent", flush=True)
        time.sleep(60)


if __name__ == "__main__":
    main()
