"""More than the server takes: a clear refusal for those beyond the limit, and no harm to others."""

import contextlib
from pathlib import Path

from websockets.exceptions import ConnectionClosed

from positronic.offboard import wire
from tests.positronic.offboard.faults.process import Neighbour, server_process
from tests.positronic.offboard.faults.sockets import open_session, reset
from tests.positronic.offboard.running import raw, ready, receive


def test_beyond_max_sessions_is_refused_and_who_dies_makes_room(tmp_path: Path) -> None:
    options = {"max_sessions": 4}
    with server_process(tmp_path / "log", options=options) as server:
        server.wait_until_ready()
        before = server.holdings().files
        with Neighbour(server.port):
            for _ in range(5):
                killed = [open_session(server.port) for _ in range(3)]
                with raw(server.port) as late:
                    message = receive(late)
                    assert message["status"] == "error"
                    assert "4 sessions" in message["error"]
                    with contextlib.suppress(ConnectionClosed):
                        late.recv(timeout=20)
                    assert late.close_code == 1013
                for session in killed:
                    reset(session)
                server.wait_for_files(before + 1)
        server.assert_lives()


def test_a_full_queue_says_busy_and_every_request_gets_one_reply(tmp_path: Path) -> None:
    batching = {"max_batch": 2, "max_queue": 2}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(server_process(tmp_path / "log", batching=batching))
        server.wait_until_ready()
        sessions = [stack.enter_context(raw(server.port)) for _ in range(12)]
        for session in sessions:
            ready(session)
        busy = 0
        for turn in range(5):
            for number, session in enumerate(sessions):
                session.send(
                    wire.pack(
                        {
                            "request_id": turn,
                            "observation": {"grip": number, "sleep": 0.02},
                        }
                    )
                )
            for number, session in enumerate(sessions):
                reply = receive(session)
                assert reply["request_id"] == turn
                if "result" in reply:
                    assert reply["result"][0]["target_grip"] == number
                    continue
                busy += 1
                assert reply["code"] == "busy"
                assert reply["retry_after_ms"] > 0
        assert 0 < busy < 60
        for session in sessions:
            session.close()
        server.assert_lives()
