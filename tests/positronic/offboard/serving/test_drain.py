import signal
import time

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from foundation.stopping import ECHO_S
from positronic.offboard import wire
from tests.positronic.offboard.process import process
from tests.positronic.offboard.running import ask, get, raw, ready, receive, until_draining

SHUTTING_DOWN = "the server is shutting down"


def closing(session: ClientConnection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as closed:
        session.recv(timeout=20)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


def test_open_sessions_are_served_to_their_end_and_nobody_else_gets_in() -> None:
    with process() as server:
        assert server.line() == "ready"
        with raw(server.port) as session:
            ready(session)
            session.send(wire.pack({"grip": 0.5, "sleep": 0.3}))
            server.signal()
            until_draining(server.port)
            status, evidence = get(server.port, "/readyz")
            assert (status, evidence["reason"]) == (503, "draining")
            assert get(server.port, "/livez")[0] == 200
            with raw(server.port) as late:
                message = receive(late)
                assert message["status"] == "error"
                assert message["error"].startswith(SHUTTING_DOWN)
                assert closing(late) == (1013, SHUTTING_DOWN)
            assert receive(session)["result"][0]["target_grip"] == 0.5
            assert ask(session, grip=0.25)["result"][0]["count"] == 2
            assert server.process.poll() is None
        code, log = server.end()
    assert code == 0
    assert "Traceback" not in log
    assert "draining sessions=1 timeout_s=30" in log


def test_a_session_that_goes_on_is_ended_when_the_time_is_over() -> None:
    with process(drain_timeout_s=0.3) as server:
        assert server.line() == "ready"
        with raw(server.port) as idle, raw(server.port) as asking:
            ready(idle)
            ready(asking)
            asking.send(wire.pack({"grip": 0, "sleep": 30}))
            server.signal()
            assert closing(idle) == (1001, SHUTTING_DOWN)
            assert closing(asking) == (1001, SHUTTING_DOWN)
        code, log = server.end()
    assert code == 0
    assert "Traceback" not in log


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(second: signal.Signals) -> None:
    with process(drain_timeout_s=300) as server:
        assert server.line() == "ready"
        with raw(server.port) as session:
            ready(session)
            session.send(wire.pack({"grip": 0, "sleep": 30}))
            server.signal()
            until_draining(server.port)
            time.sleep(ECHO_S)
            server.signal(second)
            assert closing(session) == (1001, SHUTTING_DOWN)
        assert server.end()[0] == 0


def test_a_signal_that_arrives_twice_at_once_is_one() -> None:
    """As `docker compose run` without a terminal hands it on."""
    with process(drain_timeout_s=300) as server:
        assert server.line() == "ready"
        with raw(server.port) as session:
            ready(session)
            server.signal()
            time.sleep(0.02)  # or the system would make one of them itself
            server.signal()
            until_draining(server.port)
            assert ask(session, grip=0)["result"]
        assert server.end()[0] == 0


def test_a_closed_terminal_drains_it_however_often_it_says_so() -> None:
    with process(drain_timeout_s=300) as server:
        assert server.line() == "ready"
        with raw(server.port) as session:
            ready(session)
            server.signal(signal.SIGHUP)
            until_draining(server.port)
            time.sleep(ECHO_S)
            server.signal(signal.SIGHUP)
            assert ask(session, grip=0, sleep=0.3)["result"]
        assert server.end()[0] == 0


def test_while_it_loads_a_signal_ends_it_at_once() -> None:
    with process(held=["010000"], drain_timeout_s=300) as server, raw(server.port) as session:
        assert receive(session)["status"] == "loading"
        server.signal()
        message = receive(session)
        assert message["error"].startswith(SHUTTING_DOWN)
        assert closing(session)[0] == 1013
        code, log = server.end()
    assert code == 0
    assert "Traceback" not in log


def test_who_waits_for_a_checkpoint_is_told_while_the_others_go_on() -> None:
    with process(held=["020000"]) as server:
        assert server.line() == "ready"
        with raw(server.port) as session, raw(server.port, "/api/v1/session/020000") as waiting:
            ready(session)
            assert receive(waiting)["status"] == "loading"
            server.signal()
            assert receive(waiting)["error"].startswith(SHUTTING_DOWN)
            assert closing(waiting)[0] == 1013
            assert ask(session, grip=0)["result"]
        assert server.end()[0] == 0
