"""Clients that die, freeze, or are cut off: their sessions end, and nobody else notices."""

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from positronic.offboard import wire
from tests.positronic.offboard.faults.process import (
    FEW_OBJECTS,
    MIB,
    Neighbour,
    ServerProcess,
    server_process,
)
from tests.positronic.offboard.faults.sockets import (
    UPGRADE,
    binary,
    network,
    open_session,
    open_socket,
    read_to_end,
    reset,
)
from tests.positronic.offboard.process import line_of
from tests.positronic.offboard.running import ask, get, raw, ready

PING_S = 0.3


@pytest.fixture(scope="module")
def pinging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that asks quickly whether its clients are there."""
    log = tmp_path_factory.mktemp("pinging") / "log"
    options = {
        "ping_interval_s": PING_S,
        # Long enough for honest clients on a machine that has other work.
        "ping_timeout_s": 1.0,
        "handshake_timeout_s": 1.0,
        "send_timeout_s": 1.0,
    }
    with server_process(log, options=options) as server:
        yield server.wait_until_ready()


def test_a_client_killed_at_any_stage_of_its_sessions_leaves_nothing_behind(
    server: ServerProcess,
) -> None:
    server.assert_lives()
    before = server.holdings()
    with Neighbour(server.port):
        for _ in range(3):
            client = subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.client_process", str(server.port)],
                stdout=subprocess.PIPE,
                text=True,
            )
            assert client.stdout is not None
            assert line_of(client, "the client to send everything") == "everything is sent\n"
            client.kill()
            client.communicate()
    server.wait_for_files(before.files)
    server.assert_lives()
    grown = server.holdings().more_than(before)
    assert sum(grown.values()) < FEW_OBJECTS, grown


def test_a_client_killed_mid_request_harms_nobody(server: ServerProcess) -> None:
    before = server.holdings().files
    request = binary(wire.pack({"grip": 1.0, "sleep": 0.02}))
    with Neighbour(server.port):
        for end in (socket.socket.close, reset) * 20:
            session = open_session(server.port)
            session.sendall(request)
            end(session)
    server.wait_for_files(before)
    server.assert_lives()


def test_a_client_killed_mid_frame_harms_nobody(server: ServerProcess) -> None:
    before = server.holdings().files
    request = binary(wire.pack({"grip": 1.0, "data": bytes(100_000)}))
    with Neighbour(server.port):
        for at in (1, 2, 9, 13, 14, 1000, len(request) - 1):
            for end in (socket.socket.close, reset):
                session = open_session(server.port)
                session.sendall(request[:at])
                end(session)
    server.wait_for_files(before)
    server.assert_lives()


def test_clients_killed_while_their_checkpoint_loads_leave_it_unused(tmp_path: Path) -> None:
    upgrade = UPGRADE.replace(b"/session ", b"/session/020000 ")
    with server_process(tmp_path / "log", held=["020000"]) as server:
        before = server.wait_until_ready().holdings().files
        with Neighbour(server.port):
            for end in (socket.socket.close, reset) * 5:
                opened = open_socket(server.port)
                opened.sendall(upgrade)
                received = b""
                while b"loading" not in received:
                    part = opened.recv(4096)
                    assert part, f"the server closed before it said that it loads: {received!r}"
                    received += part
                end(opened)
            # The server sees it when it sends the next status frame, or now.
            server.order("release", "020000")
            with raw(server.port, "/api/v1/session/020000") as late:
                assert ready(late)["checkpoint_id"] == "020000"
            server.wait_for_files(before + 1)
        _, status = get(server.port, "/api/v1/status")
        assert {model["id"]: model["sessions"] for model in status["models"]} == {
            "010000": 0,
            "020000": 0,
        }
        server.assert_lives()


def test_a_peer_behind_a_cut_network_is_given_up_by_ping(pinging: ServerProcess) -> None:
    before = pinging.holdings().files
    with contextlib.ExitStack() as stack:
        stack.enter_context(Neighbour(pinging.port))
        between = stack.enter_context(network(pinging.port))
        sessions = [stack.enter_context(raw(between.port, close_timeout=0)) for _ in range(5)]
        for number, session in enumerate(sessions):
            ready(session)
            assert ask(session, grip=number)["result"]
        sessions[0].send(wire.pack({"grip": 1, "sleep": 0.2}))
        between.cut()
        # The neighbour's connection stays.
        pinging.wait_for_files(before + 1)
    pinging.wait_for_files(before)
    pinging.assert_lives()


def test_a_client_that_stops_mid_frame_is_given_up_by_ping(pinging: ServerProcess) -> None:
    request = binary(wire.pack({"grip": 1.0, "data": bytes(100_000)}))
    with Neighbour(pinging.port), open_session(pinging.port) as session:
        session.sendall(request[: len(request) // 2])
        assert b"keepalive ping timeout" in read_to_end(session)
    pinging.assert_lives()


def test_a_client_that_answers_pings_is_left_alone(pinging: ServerProcess) -> None:
    with raw(pinging.port) as session:
        ready(session)
        with pytest.raises(TimeoutError):
            session.recv(timeout=2.0)
        assert ask(session, grip=1)["result"]


def test_a_client_that_never_upgrades_holds_no_session(server: ServerProcess) -> None:
    before = server.holdings().files
    with contextlib.ExitStack() as stack:
        for at in (0, 1, 20, len(UPGRADE) - 1):
            for _ in range(10):
                stack.enter_context(open_socket(server.port)).sendall(UPGRADE[:at])
        with Neighbour(server.port):
            server.assert_lives()
    server.wait_for_files(before)


def test_a_client_that_asks_for_nothing_is_dropped(pinging: ServerProcess) -> None:
    before = pinging.holdings().files
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(open_socket(pinging.port)) for _ in range(20)]
        for number, opened in enumerate(silent):
            opened.sendall(UPGRADE[:number])
        for opened in silent:
            assert read_to_end(opened).startswith(b"HTTP/1.1 408 ")
    pinging.wait_for_files(before)
    pinging.assert_lives()


def test_a_slow_reader_fills_no_memory_and_is_dropped(pinging: ServerProcess) -> None:
    """It sends on and on and reads nothing; each reply would be of a megabyte."""
    request = binary(wire.pack({"grip": 1.0, "padding": MIB // 3}))
    pinging.assert_lives()
    before = pinging.holdings()
    with Neighbour(pinging.port):
        sessions = [open_session(pinging.port, receive_buffer=4096) for _ in range(4)]
        for session in sessions:
            session.sendall(request * 40)
        pinging.wait_for_files(before.files + 1)
        for session in sessions:
            session.close()
    pinging.wait_for_files(before.files)
    pinging.assert_lives()
    assert pinging.peak - before.resident < 32 * MIB
