import contextlib
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from websockets.sync.server import ServerConnection, serve

from foundation.errors import UsageError
from positronic.errors import ServerGone, SessionError
from positronic.offboard import link, wire
from positronic.offboard.client import InferenceClient, RemotePolicy, RemoteSession
from positronic.offboard.session import SessionState
from positronic.policy import ChunkPlayer, Policy, Session
from tests.positronic.offboard.running import serving
from tests.positronic.offboard.scripted import READY, client, free_port, say, speaking
from tests.positronic.offboard.small_models import Source


@pytest.fixture
def port() -> Iterator[int]:
    with serving(Source(["010000", "020000"])) as port:
        yield port


def test_it_lists_models_and_runs_sessions(port: int) -> None:
    assert client(port).models() == ["010000", "020000"]
    with client(port).new_session() as session:
        assert isinstance(session, Session)
        assert session.meta["checkpoint_id"] == "010000"
        actions = session.infer({"grip": 0.25})
        assert [action["timestamp"] for action in actions] == [0.0, 0.1, 0.2]
        assert session.infer({"grip": 0.5})[0]["count"] == 2
    assert session.state is SessionState.CLOSED
    session.close()


def test_a_remote_policy_is_a_policy_and_plays(port: int) -> None:
    policy = RemotePolicy("127.0.0.1", port, checkpoint="020000")
    assert isinstance(policy, Policy)
    assert policy.meta["checkpoint_id"] == "020000"
    with policy.new_session({"grip": 0.75}) as session:
        player = ChunkPlayer(session)
        counts = [player.action({}, k / 10)["count"] for k in range(7)]
    assert counts == [1, 1, 1, 2, 2, 2, 3]
    policy.close()


def test_an_error_reply_leaves_the_session_usable(port: int) -> None:
    with client(port).new_session() as session:
        with pytest.raises(SessionError, match="could not infer: needs grip; present: task"):
            session.infer({"task": "x"})
        assert session.infer({"grip": 0})


def test_what_cannot_be_sent_leaves_the_session_usable(port: int) -> None:
    with client(port).new_session() as session:
        with pytest.raises(SessionError, match="cannot send this message"):
            session.infer({"grip": 0, "x": object()})
        assert session.infer({"grip": 0})[0]["count"] == 1


def test_an_unknown_checkpoint_is_refused_in_the_servers_words(port: int) -> None:
    with pytest.raises(SessionError, match=r"Checkpoint not found: 7/é. Available: \['010000'"):
        client(port).new_session("7/é")


def test_what_the_server_does_meanwhile_is_passed_on() -> None:
    source = Source(["010000"])
    gate = source.hold("010000")
    said: list[str] = []

    def on_status(message: str) -> None:
        said.append(message)
        gate.set()

    with (
        serving(source, wait=False) as port,
        client(port, on_status=on_status).new_session() as session,
    ):
        assert session.meta["type"] == "counting"
    assert re.fullmatch(r"Loading checkpoint 010000\.\.\. \(\d+ s\)", said[0])


def test_no_server_gives_one_line_that_says_how_to_start_one() -> None:
    port = free_port()
    began = time.monotonic()
    for call in (client(port).new_session, client(port).models):
        with pytest.raises(SessionError) as error:
            call()
        assert f"no inference server at ws://127.0.0.1:{port}" in str(error.value)
        assert "start one with `python -m positronic.vendors.lerobot.server" in str(error.value)
        assert "\n" not in str(error.value)
    assert time.monotonic() - began < 3


def test_a_name_that_does_not_exist_is_not_tried_again() -> None:
    nowhere = InferenceClient("no-such-host.invalid", 8000, connect_timeout=30)
    began = time.monotonic()
    with pytest.raises(SessionError, match="no inference server at ws://no-such-host.invalid:8000"):
        nowhere.new_session()
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("port", [0, -1, 70000])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    with pytest.raises(UsageError, match=f"--port={port} is not a TCP port"):
        InferenceClient("localhost", port)


def test_it_waits_for_a_server_that_starts_late() -> None:
    port = free_port()
    box: list[RemoteSession] = []
    patient = InferenceClient("127.0.0.1", port, connect_timeout=20)
    thread = threading.Thread(target=lambda: box.append(patient.new_session()))
    thread.start()
    time.sleep(0.5)

    def script(connection: ServerConnection) -> None:
        say(connection, READY)
        connection.recv(timeout=20)

    with serve(script, "127.0.0.1", port) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        thread.join(20)
        assert box[0].meta["type"] == "old"
        box[0].close()
        server.shutdown()


def test_a_public_server_without_contract_or_stack_gets_all_that_there_is() -> None:
    seen: list[Any] = []

    def script(connection: ServerConnection) -> None:
        say(connection, {"status": "waiting", "message": "Waiting for 1 active session(s)..."})
        say(connection, {"status": "loading"}, READY)
        replies: list[Any] = [{"target_grip": 1.0}, None, [{}, {}]]
        for reply in replies:
            seen.append(wire.unpack(connection.recv(timeout=20)))  # type: ignore[arg-type]
            say(connection, {"status": "waiting", "message": "1 before you"}, {"result": reply})

    said: list[str] = []
    with speaking(script) as port, client(port, on_status=said.append).new_session() as session:
        obs = {"image.wrist": np.zeros((4, 4, 3), np.uint8), "anything": 1}
        assert session.infer(obs) == [{"target_grip": 1.0}]
        assert session.infer(obs) == []
        assert session.infer(obs) == [{}, {}]
    assert said == ["Waiting for 1 active session(s)...", "loading", *["1 before you"] * 3]
    assert sorted(seen[0]) == ["anything", "image.wrist"]


def test_it_offers_no_deflate_and_sends_the_token() -> None:
    headers: list[Any] = []

    def script(connection: ServerConnection) -> None:
        assert connection.request is not None
        headers.append(connection.request.headers)
        say(connection, READY)

    with speaking(script) as port:
        client(port, token="secret").new_session().close()
    assert headers[0]["Authorization"] == "Bearer secret"
    assert "Sec-WebSocket-Extensions" not in headers[0]


def test_a_reply_larger_than_one_mib_arrives() -> None:
    def script(connection: ServerConnection) -> None:
        say(connection, READY)
        connection.recv(timeout=20)
        say(connection, {"result": [{"x": np.zeros(2**19)}]})

    with speaking(script) as port, client(port).new_session() as session:
        assert session.infer({})[0]["x"].size == 2**19


def test_a_server_that_goes_away_is_named_and_the_session_is_over() -> None:
    def script(connection: ServerConnection) -> None:
        say(connection, READY)
        connection.recv(timeout=20)
        connection.close(1012, "restart")

    with speaking(script) as port, client(port).new_session() as session:
        with pytest.raises(ServerGone, match=r"went away while a reply was due \(closed with 1012"):
            session.infer({"grip": 0})
        assert session.state is SessionState.CLOSED
        with pytest.raises(ServerGone, match="is over; open a new one"):
            session.infer({"grip": 0})


def test_a_server_killed_without_goodbye_is_server_gone() -> None:
    def script(connection: ServerConnection) -> None:
        say(connection, READY)
        connection.recv(timeout=20)
        connection.socket.shutdown(2)

    with (
        speaking(script) as port,
        client(port).new_session() as session,
        pytest.raises(ServerGone, match="connection lost"),
    ):
        session.infer({"grip": 0})


def test_a_late_reply_is_never_taken_for_the_next_one() -> None:
    release = threading.Event()

    def script(connection: ServerConnection) -> None:
        say(connection, READY)
        connection.recv(timeout=20)
        release.wait(20)
        with contextlib.suppress(Exception):
            say(connection, {"result": [{"late": True}]})

    with speaking(script) as port, client(port, request_timeout=0.2).new_session() as session:
        with pytest.raises(SessionError, match=r"did not answer within 0\.2 s"):
            session.infer({"grip": 0})
        release.set()
        with pytest.raises(ServerGone, match="is over"):
            session.infer({"grip": 0})


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"actions": [1]}, "does not speak the session protocol"),
        ([1, 2], "sent a list, expected a map"),
        ({"status": "error", "error": "No checkpoints found in x"}, "refused: No checkpoints"),
        ({"error": "busy"}, "refused: busy"),
    ],
)
def test_a_handshake_that_is_none_is_named(message: Any, says: str) -> None:
    def script(connection: ServerConnection) -> None:
        say(connection, message)

    with speaking(script) as port, pytest.raises(SessionError, match=says):
        client(port).new_session()


def test_text_and_strange_replies_are_named() -> None:
    def script(connection: ServerConnection) -> None:
        say(connection, READY)
        connection.recv(timeout=20)
        say(connection, {"foo": 1})
        connection.recv(timeout=20)
        connection.send("Traceback ...")

    with speaking(script) as port, client(port).new_session() as session:
        with pytest.raises(SessionError, match="without result or error, only foo"):
            session.infer({})
        with pytest.raises(SessionError, match="sent text, expected a binary frame"):
            session.infer({})


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "STATUS_TIMEOUT_S", 0.2)
    release = threading.Event()

    def script(connection: ServerConnection) -> None:
        release.wait(20)

    with speaking(script) as port:
        with pytest.raises(SessionError, match=r"within 0\.2 s while the server was getting ready"):
            client(port).new_session()
        release.set()


def test_a_web_server_is_no_inference_server() -> None:
    def script(connection: ServerConnection) -> None:
        pass

    with speaking(script) as port, pytest.raises(SessionError, match="does not list its models"):
        client(port).models()


def test_the_client_imports_nothing_heavy() -> None:
    code = (
        "import sys, positronic.offboard.client, positronic.policy, positronic.cfg.policy;"
        "heavy = {'torch', 'lerobot', 'lightning', 'mujoco', 'pyarrow', 'av', 'fastapi', 'scipy',"
        " 'PIL', 'uvicorn', 'pydantic'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
