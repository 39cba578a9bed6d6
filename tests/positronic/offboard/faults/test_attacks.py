"""Attacks on a server end in words and cost little, and the neighbour goes on."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from positronic.errors import SessionError
from positronic.offboard import wire
from tests.positronic.offboard.faults import attacks
from tests.positronic.offboard.faults.process import (
    MIB,
    Neighbour,
    ServerProcess,
    server_process,
)
from tests.positronic.offboard.faults.sockets import (
    UPGRADE,
    binary,
    open_session,
    open_socket,
    read_to_end,
)
from tests.positronic.offboard.running import ask, get, raw, ready, receive

TOKEN = "correct-horse"
# Short, so that a test need not wait long for them; and long enough for a busy machine.
DEADLINES = {"handshake_timeout_s": 3.0, "message_timeout_s": 3.0, "send_timeout_s": 3.0}
# Processor time for which no other session has to wait, and more for what a measurement adds.
LONGEST_STALL_S = 0.1


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    log = tmp_path_factory.mktemp("server") / "log"
    with server_process(log, stalls=True, options=DEADLINES) as server:
        server.wait_until_ready()
        server.assert_lives()
        server.stall()
        yield server


@pytest.fixture(scope="module")
def closed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with a token."""
    log = tmp_path_factory.mktemp("closed") / "log"
    with server_process(log, stalls=True, options={**DEADLINES, "token": TOKEN}) as server:
        yield server.wait_until_ready()


@pytest.mark.parametrize("name", attacks.MESSAGES)
def test_no_message_holds_up_the_others(server: ServerProcess, name: str) -> None:
    frame = attacks.message(name)
    server.stall()
    before = server.cpu_seconds
    with raw(server.port, max_size=None) as session, Neighbour(server.port) as neighbour:
        ready(session)
        session.send(frame)
        reply = receive(session)
        assert 0 < len(reply["error"]) <= 1000, reply
        assert reply["error"].isprintable()
        assert ask(session, grip=0.5)["result"], "the session goes on"
    assert server.stall() < LONGEST_STALL_S
    # Beside what the neighbour's own requests took.
    assert server.cpu_seconds - before < 1.0 + 0.01 * neighbour.asked


def test_ten_attackers_at_once_hold_up_nobody(server: ServerProcess) -> None:
    server.stall()
    frames = [attacks.message(name) for name in attacks.MESSAGES[:10]]
    with contextlib.ExitStack() as stack:
        neighbour = stack.enter_context(Neighbour(server.port))
        sessions = [stack.enter_context(raw(server.port)) for _ in range(10)]
        for session, frame in zip(sessions, frames, strict=True):
            ready(session)
            session.send(frame)
        for session in sessions:
            assert receive(session)["error"]
    assert neighbour.asked
    assert server.stall() < LONGEST_STALL_S
    server.assert_lives()


@pytest.mark.parametrize(
    "name",
    [
        "thousands of keys of the same hash",
        "thousands of tiny arrays",
        "a hundred thousand maps",
        "a black image of 8 million pixels",
    ],
)
def test_attackers_who_never_stop_hold_up_nobody(server: ServerProcess, name: str) -> None:
    """More of them than there are threads: with the first, an answer had taken ten seconds."""
    attackers, stop = (os.cpu_count() or 1) + 2, threading.Event()
    frame = attacks.message(name)

    def attack() -> None:
        with raw(server.port, max_size=None) as session:
            ready(session)
            while not stop.is_set():
                session.send(frame)
                receive(session)

    threads = [threading.Thread(target=attack) for _ in range(attackers)]
    for thread in threads:
        thread.start()
    try:
        with Neighbour(server.port) as neighbour:
            assert neighbour.wait_for(100)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    server.assert_lives()


@pytest.mark.parametrize("name", attacks.MESSAGES)
def test_no_message_is_dear_to_decode(name: str) -> None:
    """So much is waited for at most, by a session that has asked for less."""
    frame = attacks.message(name)
    began = time.thread_time()
    with contextlib.suppress(SessionError):
        wire.unpack(frame)
    assert time.thread_time() - began < LONGEST_STALL_S


@pytest.mark.parametrize("name", attacks.REQUESTS)
@pytest.mark.parametrize("with_token", [False, True])
def test_every_request_is_answered_and_its_connection_closed(
    request: pytest.FixtureRequest, name: str, with_token: bool
) -> None:
    server: ServerProcess = request.getfixturevalue("closed_server" if with_token else "server")
    sent, status = attacks.REQUESTS[name]
    server.stall()
    with Neighbour(server.port, token=TOKEN if with_token else None):
        got, body = attacks.answer(server.port, sent)
    assert got == status
    assert b"Traceback" not in body
    assert body.strip(), "it says why"
    assert body.count(b"\n") <= 1
    assert server.stall() < LONGEST_STALL_S


@pytest.mark.parametrize("name", attacks.OPEN_REQUESTS)
def test_pages_of_other_sites_get_nothing(server: ServerProcess, name: str) -> None:
    sent, status = attacks.OPEN_REQUESTS[name]
    got, body = attacks.answer(server.port, sent)
    assert got == status
    assert body.strip()
    server.assert_lives()


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:9000", "[::1]:80", "10.1.2.3"]
)
def test_an_address_and_localhost_are_no_names_of_others(server: ServerProcess, host: str) -> None:
    # With any port: it may have been forwarded.
    assert attacks.answer(server.port, attacks.head(b"Host: " + host.encode()))[0] == 200
    with raw(server.port, origin=f"http://127.0.0.1:{server.port}") as session:
        ready(session)


def test_with_a_token_any_name_will_do_that_a_proxy_may_have_given(
    closed_server: ServerProcess,
) -> None:
    request = attacks.head(b"Host: robots.example")
    assert attacks.answer(closed_server.port, request)[0] == 200
    mine = {"Authorization": f"Bearer {TOKEN}", "Host": "robots.example"}
    assert get(closed_server.port, "/api/v1/models", mine)[0] == 200


@pytest.mark.parametrize("name", attacks.FLOODS)
def test_floods_of_small_frames_cost_no_more_than_others(server: ServerProcess, name: str) -> None:
    server.stall()
    before = server.cpu_seconds
    flood = attacks.small_frames(name)
    with Neighbour(server.port) as neighbour, open_session(server.port) as opened:
        opened.settimeout(1.0)
        flood(opened)
        if not name.startswith("messages"):
            code, why = attacks.close_code(read_to_end(opened))
            # Its own bytes may have reset the connection before it had read why.
            assert (code, why) in [
                (1008, "more than 100 small fragments or pings a second"),
                (0, ""),
            ]
    assert server.stall() < LONGEST_STALL_S
    spent = server.cpu_seconds - before
    assert spent < (1.0 if not name.startswith("messages") else 3.0) + 0.01 * neighbour.asked
    server.assert_lives()


def test_a_few_fragments_and_pings_are_no_attack(server: ServerProcess) -> None:
    with raw(server.port) as session:
        ready(session)
        observation = wire.pack({"grip": 0.5, "padding_": bytes(3 * MIB)})
        for size in (1000, 100_000):
            parts = [observation[i : i + size] for i in range(0, len(observation), size)]
            session.send(parts[-60:] if size == 1000 else parts)
            if size == 1000:
                assert "error" in receive(session), "the end of a message is none"
            else:
                assert receive(session)["result"][0]["target_grip"] == 0.5
        for _ in range(20):
            assert session.ping().wait(20), "no pong within 20 s"


def test_an_unfinished_message_is_not_waited_for(server: ServerProcess) -> None:
    with Neighbour(server.port), attacks.unfinished(server.port) as opened:
        assert attacks.close_code(read_to_end(opened)) == (
            1008,
            "a message took more than 3 s to come",
        )
    server.assert_lives()


def test_unfinished_messages_hold_no_more_than_a_bound_together(tmp_path: Path) -> None:
    options = {**DEADLINES, "message_timeout_s": 600.0}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(server_process(tmp_path / "log", options=options))
        server.wait_until_ready()
        before = server.holdings().resident
        with Neighbour(server.port):
            held = [stack.enter_context(attacks.unfinished(server.port)) for _ in range(24)]
            # What is bounded is 8 of the largest; the first that came have gone.
            code, why = attacks.close_code(read_to_end(held[0]))
            assert (code, why) in [
                (1008, "the server holds too many unfinished messages; send whole ones"),
                (0, ""),
            ]
            grown = server.holdings().resident - before
        assert grown < 12 * attacks.LIMIT, f"{grown / MIB:.0f} MiB"
        server.assert_lives()


def test_pipelined_requests_and_answers_that_nobody_reads_are_dropped(
    server: ServerProcess,
) -> None:
    before = server.holdings().files
    with contextlib.ExitStack() as stack:
        stack.enter_context(Neighbour(server.port))
        for _ in range(20):
            opened = stack.enter_context(open_socket(server.port, receive_buffer=4096))
            with contextlib.suppress(OSError):
                opened.sendall((attacks.STATUS + b"\r\n") * 10_000)
        # None of them is read, and all of them are over.
        server.wait_for_files(before + 1)


def test_a_thousand_connections_that_ask_for_nothing_lock_nobody_out(tmp_path: Path) -> None:
    options = {**DEADLINES, "handshake_timeout_s": 60.0, "max_sessions": 4}
    job: dict[str, Any] = {"options": options, "files": 256, "log_format": "text"}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(server_process(tmp_path / "log", **job))
        server.wait_until_ready()
        with Neighbour(server.port) as neighbour:
            for _ in range(1000):
                opened = stack.enter_context(socket.socket())
                opened.settimeout(20)
                opened.connect(("127.0.0.1", server.port))
            assert get(server.port, "/livez") == (200, b"ok\n")
            with raw(server.port) as session:
                ready(session)
                assert ask(session, grip=0.5)["result"]
        assert neighbour.asked
        assert server.holdings().files < 256
        assert len(server.log.splitlines()) < 200, "a flood logs at a bounded rate"
        server.assert_lives()
        server.process.send_signal(signal.SIGTERM)
        server.assert_ends()


def test_a_flood_of_bad_requests_writes_a_bounded_log(tmp_path: Path) -> None:
    with server_process(tmp_path / "log", log_format="text") as server:
        server.wait_until_ready()
        for _ in range(300):
            assert attacks.answer(server.port, attacks.REQUESTS["no HTTP"][0])[0] == 400
            assert attacks.answer(server.port, attacks.REQUESTS["two hosts"][0])[0] == 400
            assert attacks.answer(server.port, attacks.head(b"Host: evil.example"))[0] == 403
        assert len(server.log.splitlines()) < 300


def test_five_thousand_digits_are_no_checkpoint(server: ServerProcess) -> None:
    with raw(server.port, "/api/v1/session/" + "9" * 5000) as session:
        message = receive(session)
        assert message["status"] == "error"
        assert message["error"].startswith("Checkpoint not found: 999")
        assert len(message["error"]) < 200
        with pytest.raises(ConnectionClosed):
            session.recv(timeout=20)
        assert (session.close_code, session.close_reason) == (1008, "Checkpoint not found")
    server.assert_lives()


def test_without_the_token_no_session_is_begun(closed_server: ServerProcess) -> None:
    with Neighbour(closed_server.port, token=TOKEN):
        for _ in range(50):
            with pytest.raises(InvalidStatus, match="403"):
                raw(closed_server.port)
            with open_socket(closed_server.port) as opened:
                opened.sendall(UPGRADE + binary(bytes(1 << 20)))
                assert read_to_end(opened).startswith(b"HTTP/1.1 403 ")
    assert "completing handshake" not in closed_server.log


def test_a_session_that_asks_far_too_often_is_slowed_down(tmp_path: Path) -> None:
    options = {"rate_limit": 10}
    with server_process(tmp_path / "log", options=options) as server:
        server.wait_until_ready()
        with raw(server.port) as session:
            ready(session)
            before = server.cpu_seconds
            codes = []
            for number in range(15):
                session.send(wire.pack({"request_id": number, "observation": {"grip": 0}}))
            for _ in range(15):
                reply = receive(session)
                codes.append(reply.get("code"))
            # After each refusal it waits until the next request is due.
            assert codes[:10] == [None] * 10
            assert codes[10:].count("rate") <= 4
            assert server.cpu_seconds - before < 1.0


def test_sigterm_ends_it_whatever_stage_its_connections_are_in(tmp_path: Path) -> None:
    options = {"drain_timeout_s": 0.1}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(server_process(tmp_path / "log", options=options))
        server.wait_until_ready()
        stages = [sent for sent, _ in (attacks.REQUESTS | attacks.OPEN_REQUESTS).values()]
        stages += [UPGRADE[:at] for at in (1, 50, len(UPGRADE) - 2)]
        # What was refused, and is not read to its end; an upgrade that was not understood too.
        for sent in stages:
            stack.enter_context(open_socket(server.port)).sendall(sent)
        stack.enter_context(attacks.unfinished(server.port, 1 << 20))
        server.process.send_signal(signal.SIGTERM)
        server.assert_ends()
