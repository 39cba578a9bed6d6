"""What sessions leave behind: nothing that adds up."""

import threading

from positronic.offboard import wire
from tests.positronic.offboard.faults.process import (
    FEW_OBJECTS,
    MIB,
    Holdings,
    Neighbour,
    ServerProcess,
)
from tests.positronic.offboard.faults.sockets import binary, open_session
from tests.positronic.offboard.running import ask, raw, ready

SESSIONS = 1000
# For the images of a session: what is not given back would be seen.
IMAGES = bytes(100_000)


def come_and_go(port: int, count: int) -> None:
    """Open and close sessions, politely and not, from several threads."""

    def visits() -> None:
        request = binary(wire.pack({"grip": 1, "image": IMAGES}))
        for number in range(count // 4):
            if number % 3:
                with raw(port) as session:
                    ready(session)
                    assert ask(session, grip=number, image=IMAGES)["result"]
            else:
                with open_session(port) as rude:
                    rude.sendall(request)

    robots = [threading.Thread(target=visits) for _ in range(4)]
    for robot in robots:
        robot.start()
    for robot in robots:
        robot.join(60)
        assert not robot.is_alive()


def is_steady(before: Holdings, after: Holdings) -> bool:
    return after.threads <= before.threads and after.resident - before.resident < 4 * MIB


def test_a_thousand_sessions_leave_no_memory_objects_files_or_threads(
    server: ServerProcess,
) -> None:
    files = server.holdings().files
    come_and_go(server.port, 200)
    server.wait_for_files(files)
    held = [server.holdings()]
    # What leaks does so every time; what allocator and threads keep for later, they keep once.
    for _ in range(3):
        with Neighbour(server.port):
            come_and_go(server.port, SESSIONS)
        server.wait_for_files(files)
        held.append(server.holdings())
        grown = held[-1].more_than(held[-2])
        assert sum(grown.values()) < FEW_OBJECTS, grown
        if is_steady(*held[-2:]):
            break
    else:
        raise AssertionError([(each.resident, each.threads) for each in held])
    assert held[-1].threads <= held[0].threads + 2
    server.assert_lives()
