"""SIGTERM at every moment: what was asked is answered, clients are told, and the status is 0."""

import contextlib
import signal
import time
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from foundation.stopping import ECHO_S
from positronic.offboard import wire
from tests.positronic.offboard.faults.process import ServerProcess, server_process
from tests.positronic.offboard.faults.sockets import binary, open_session
from tests.positronic.offboard.running import ask, raw, ready, receive


def closing(connection: ClientConnection) -> tuple[int, str]:
    """Read until the server closes; give code and reason."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            connection.recv(timeout=20)
    assert connection.close_code is not None
    return connection.close_code, connection.close_reason or ""


def test_sigterm_while_loading_ends_it_at_once_and_tells_who_waits(tmp_path: Path) -> None:
    with (
        server_process(tmp_path / "log", held=["010000"]) as server,
        raw(server.port) as waiting,
    ):
        assert receive(waiting)["status"] == "loading"
        server.process.send_signal(signal.SIGTERM)
        code, _ = closing(waiting)
        assert code in (1001, 1012, 1013)
        server.order("release", "010000")
        server.assert_ends()


def test_sigterm_while_inferring_answers_first(tmp_path: Path) -> None:
    options = {"drain_timeout_s": 5.0}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(server_process(tmp_path / "log", options=options))
        server.wait_until_ready()
        sessions = [stack.enter_context(raw(server.port)) for _ in range(4)]
        for session in sessions:
            ready(session)
        for number, session in enumerate(sessions):
            session.send(wire.pack({"grip": number, "sleep": 0.3}))
        # The first of them is being predicted, the others are under way or wait.
        assert receive(sessions[0])["result"][0]["target_grip"] == 0
        server.process.send_signal(signal.SIGTERM)
        for number, session in enumerate(sessions[1:], start=1):
            assert receive(session)["result"][0]["target_grip"] == number
        for session in sessions:
            session.close()
        server.assert_ends()


def test_while_draining_sessions_go_on_new_ones_are_refused_and_the_time_is_kept(
    tmp_path: Path,
) -> None:
    options = {"drain_timeout_s": 1.5}
    with (
        server_process(tmp_path / "log", options=options) as server,
        raw(server.wait_until_ready().port) as session,
        raw(server.port) as other,
    ):
        ready(session)
        ready(other)
        server.process.send_signal(signal.SIGTERM)
        refusal = refused(server)
        assert refusal["status"] == "error"
        assert "again" in refusal["error"] or "shutting" in refusal["error"]
        assert ask(session, grip=1)["result"]
        other.close()
        assert closing(session)[0] == 1001
        server.assert_ends()


def refused(server: ServerProcess) -> dict[str, Any]:
    """Open sessions until one is refused: the signal may not have arrived yet."""
    deadline = time.monotonic() + 30
    while True:
        with raw(server.port) as late:
            message = receive(late)
            if message["status"] != "ready":
                return message
        assert time.monotonic() < deadline, "30 s after the signal sessions are still let in"


def test_a_request_under_way_when_the_drain_ends_is_not_waited_for_forever(
    tmp_path: Path,
) -> None:
    options = {"drain_timeout_s": 0.2}
    with (
        server_process(tmp_path / "log", options=options) as server,
        raw(server.wait_until_ready().port) as session,
    ):
        ready(session)
        session.send(wire.pack({"grip": 1, "sleep": 1.5}))
        server.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            closing(session)
        server.assert_ends()


def test_a_second_sigterm_ends_the_drain(tmp_path: Path) -> None:
    options = {"drain_timeout_s": 600.0}
    with (
        server_process(tmp_path / "log", options=options) as server,
        raw(server.wait_until_ready().port) as session,
    ):
        ready(session)
        server.process.send_signal(signal.SIGTERM)
        refused(server)
        assert ask(session, grip=1)["result"]
        time.sleep(ECHO_S)
        server.process.send_signal(signal.SIGTERM)
        assert closing(session)[0] in (1001, 1012)
        server.assert_ends()


def test_clients_that_do_not_read_cannot_hold_up_the_end(tmp_path: Path) -> None:
    options = {"drain_timeout_s": 0.3}
    with server_process(tmp_path / "log", options=options) as server:
        server.wait_until_ready()
        slow = open_session(server.port, receive_buffer=4096)
        slow.sendall(binary(wire.pack({"grip": 1.0, "padding": 3 * 2**20})) * 3)
        assert slow.recv(64)  # of the first reply, the rest of which is not taken
        server.process.send_signal(signal.SIGTERM)
        server.assert_ends()
        slow.close()
