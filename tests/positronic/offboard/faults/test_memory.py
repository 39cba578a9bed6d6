"""What sessions leave behind: nothing that adds up."""

import threading

from positronic.offboard import wire
from tests.positronic.offboard.faults.process import FEW_OBJECTS, MIB, Neighbour, ServerProcess
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


def test_a_thousand_sessions_leave_no_memory_objects_files_or_threads(
    server: ServerProcess,
) -> None:
    before_all = server.holdings().files
    come_and_go(server.port, 200)
    server.wait_for_files(before_all)
    before = server.holdings()
    with Neighbour(server.port):
        come_and_go(server.port, SESSIONS)
    server.wait_for_files(before.files)
    after = server.holdings()
    server.assert_lives()
    grown = after.more_than(before)
    assert sum(grown.values()) < FEW_OBJECTS, grown
    assert after.threads <= before.threads + 1
    assert after.resident - before.resident < 4 * MIB
