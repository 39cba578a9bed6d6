import contextlib
import random
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from websockets.sync.server import ServerConnection

from positronic.errors import Busy, ServerGone, SessionError
from positronic.offboard import wire
from positronic.offboard.session import SessionState
from positronic.policy import ChunkPlayer
from tests.positronic.offboard.running import serving
from tests.positronic.offboard.scripted import (
    OURS,
    client,
    hear,
    reply,
    say,
    say_ready,
    speaking,
)
from tests.positronic.offboard.small_models import Source


def answering(connection: ServerConnection) -> None:
    """Go on answering each request with its number."""
    while True:
        request = hear(connection)
        reply(connection, request["request_id"], {"number": request["request_id"]})


def test_a_late_reply_is_dropped_and_the_session_goes_on() -> None:
    timed_out = threading.Event()

    def script(connection: ServerConnection) -> None:
        say_ready(connection)
        first = hear(connection)
        assert timed_out.wait(20)
        second = hear(connection)
        reply(connection, first["request_id"], {"late": True})
        reply(connection, second["request_id"], {"late": False})
        answering(connection)

    with speaking(script) as port, client(port, request_timeout=0.3).new_session() as session:
        with pytest.raises(SessionError, match=r"did not answer within 0\.3 s"):
            session.infer({"grip": 0})
        assert session.state is SessionState.READY
        timed_out.set()
        assert session.infer({"grip": 1}) == [{"late": False}]
        assert session.infer({"grip": 2}) == [{"number": 3}]
        assert session.reconnects == 0


@pytest.mark.parametrize(
    "chunk",
    [
        None,
        {},
        {"count": 0, "columns": {}},
        {"count": True, "columns": {}},
        {"count": 10**9, "columns": ["same", 1]},
        {"count": 2, "columns": {"target_grip": ["float", np.zeros(3)]}},
    ],
)
def test_a_damaged_chunk_is_named_and_the_session_goes_on(chunk: Any) -> None:
    def script(connection: ServerConnection) -> None:
        say_ready(connection)
        say(connection, {"request_id": hear(connection)["request_id"], "chunk": chunk})
        answering(connection)

    with speaking(script) as port, client(port).new_session() as session:
        with pytest.raises(SessionError, match="malformed reply"):
            session.infer({"grip": 0})
        assert session.infer({"grip": 1}) == [{"number": 2}]


def test_the_real_server_answers_on_after_a_time_out() -> None:
    with (
        serving(Source(["010000"])) as port,
        client(port, request_timeout=0.2).new_session() as session,
    ):
        with pytest.raises(SessionError, match=r"did not answer within 0\.2 s"):
            session.infer({"grip": 0.25, "sleep": 0.4})
        # Answered after the late one, which was given nobody.
        with contextlib.suppress(SessionError):
            session.infer({"grip": 0.5})
        actions = session.infer({"grip": 0.75})
        assert actions[0]["target_grip"] == 0.75
        assert session.timing["batch_size"] == 1
        assert session.reconnects == 0


@pytest.mark.parametrize("number", [0, 99, None, "1", [1]])
def test_a_reply_to_nothing_that_was_asked_ends_the_session(number: Any) -> None:
    def script(connection: ServerConnection) -> None:
        say_ready(connection)
        hear(connection)
        reply(connection, number, {"wrong": True})
        connection.recv(timeout=20)

    named = re.escape(f"answered request {number!r}, expected 1")
    with speaking(script) as port, client(port).new_session() as session:
        with pytest.raises(SessionError, match=named):
            session.infer({})
        assert session.state is SessionState.CLOSED
        with pytest.raises(ServerGone, match="is over; open a new one"):
            session.infer({})


def test_each_request_goes_in_an_envelope_with_a_number_of_its_own() -> None:
    seen: list[Any] = []

    def script(connection: ServerConnection) -> None:
        say_ready(connection)
        for _ in range(2):
            seen.append(hear(connection))
            reply(connection, seen[-1]["request_id"], timing={"infer_ms": 3.5})

    with speaking(script) as port, client(port).new_session(context={"task": "x"}) as session:
        assert session.infer({"grip": 0.5}) == []
        assert session.timing == {"infer_ms": 3.5}
        session.infer({"grip": 0.75})
    assert seen == [
        {"request_id": 1, "observation": {"task": "x", "grip": 0.5}},
        {"request_id": 2, "observation": {"task": "x", "grip": 0.75}},
    ]


def test_a_busy_server_is_asked_again_until_it_answers() -> None:
    asked: list[tuple[int, float]] = []

    def script(connection: ServerConnection) -> None:
        say_ready(connection)
        for more in (
            {"error": "busy", "code": "busy", "retry_after_ms": 20},
            {"error": "too fast", "code": "rate", "retry_after_ms": 20},
            {},
        ):
            request = hear(connection)
            assert request["observation"] == {"grip": 0.5}
            asked.append((request["request_id"], time.monotonic()))
            reply(connection, asked[-1][0], {"done": True}, **more)

    with speaking(script) as port, client(port).new_session() as session:
        assert session.infer({"grip": 0.5}) == [{"done": True}]
    assert [number for number, _ in asked] == [1, 2, 3]
    # What the server asked for, and twice that the second time.
    assert asked[1][1] - asked[0][1] >= 0.02
    assert asked[2][1] - asked[1][1] >= 0.04


def test_a_server_that_stays_busy_is_busy_at_the_time_out_and_the_session_goes_on() -> None:
    def script(connection: ServerConnection) -> None:
        say_ready(connection)
        while (request := hear(connection))["observation"]["grip"] < 1:
            reply(connection, request["request_id"], error="queue full", code="busy")
        reply(connection, request["request_id"], {"done": True})

    with speaking(script) as port, client(port, request_timeout=0.3).new_session() as session:
        with pytest.raises(Busy, match="could not infer: queue full"):
            session.infer({"grip": 0})
        assert session.infer({"grip": 1}) == [{"done": True}]


def test_other_errors_are_not_tried_again() -> None:
    def script(connection: ServerConnection) -> None:
        say_ready(connection)
        reply(connection, hear(connection)["request_id"], error="needs grip", code="invalid")
        answering(connection)

    with speaking(script) as port, client(port).new_session() as session:
        with pytest.raises(SessionError, match="could not infer: needs grip"):
            session.infer({})
        assert session.infer({}) == [{"number": 2}]


def test_a_server_that_takes_nothing_of_what_is_sent_is_given_up_in_time() -> None:
    release = threading.Event()

    def script(connection: ServerConnection) -> None:
        say(connection, {"status": "ready", "meta": {"type": "stuck"}})
        connection.recv_events_thread.join(0)
        with connection.protocol_mutex:  # it reads no more
            release.wait(20)

    with speaking(script) as port, client(port, request_timeout=0.3).new_session() as session:
        with pytest.raises(ServerGone, match="took nothing of what was sent"):
            session.infer({"image": np.zeros(2**25, np.uint8)})
        release.set()


def lost(connection: ServerConnection) -> None:
    connection.socket.shutdown(2)


@pytest.mark.parametrize("answered", [0, 1])
def test_a_lost_connection_is_replaced_where_the_policy_remembers_nothing(answered: int) -> None:
    paths: list[str] = []

    def first(connection: ServerConnection) -> None:
        say_ready(connection)
        for _ in range(answered):
            reply(connection, hear(connection)["request_id"], {"number": 0})
        hear(connection)
        lost(connection)

    def second(connection: ServerConnection) -> None:
        assert connection.request is not None
        paths.append(connection.request.path)
        say_ready(connection)
        answering(connection)

    with (
        speaking(first, second) as port,
        client(port).new_session(context={"task": "x"}) as session,
    ):
        numbers = [session.infer({})[0]["number"] for _ in range(answered + 2)]
        assert numbers == [0] * answered + [answered + 2, answered + 3]
        assert session.reconnects == 1
        assert session.meta == {**OURS, "reconnects": 1}
    assert paths == ["/api/v1/session/010000"]


def test_a_server_that_restarts_between_two_requests_is_found_again() -> None:
    with contextlib.ExitStack() as first:
        port = first.enter_context(serving(Source(["010000", "020000"]), "020000"))
        with client(port, reconnect_timeout=20).new_session() as session:
            player = ChunkPlayer(session)
            assert player.action({"grip": 0.5}, 0.0)["count"] == 1
            first.close()
            # Its default is another one now; the session stays on what it had.
            with serving(Source(["010000", "020000"]), "010000", port=port):
                counts = [player.action({"grip": 0.5}, k / 10)["count"] for k in (1, 2, 3, 4)]
                assert counts == [1, 1, 1, 1]
                assert session.reconnects == 1
                assert session.meta["checkpoint_id"] == "020000"


def test_a_server_that_does_not_come_back_is_gone_within_the_reconnect_timeout() -> None:
    with contextlib.ExitStack() as server:
        port = server.enter_context(serving(Source(["010000"])))
        with client(port, reconnect_timeout=0.4).new_session() as session:
            session.infer({"grip": 0})
            server.close()
            began = time.monotonic()
            with pytest.raises(ServerGone, match=r"went away.*and no new session: no inference"):
                session.infer({"grip": 0})
            assert time.monotonic() - began < 5
            assert session.state is SessionState.CLOSED
            with pytest.raises(ServerGone, match="is over; open a new one"):
                session.infer({"grip": 0})


def losing(connection: ServerConnection) -> None:
    say_ready(connection)
    hear(connection)
    lost(connection)


def gone(connection: ServerConnection, **meta: Any) -> None:
    say_ready(connection, **meta)
    hear(connection)
    lost(connection)


def test_a_policy_that_looks_back_is_not_continued_without_its_history() -> None:
    def script(connection: ServerConnection) -> None:
        gone(connection, every_step=True)

    with speaking(script) as port, client(port).new_session() as session:
        with pytest.raises(ServerGone, match=r"looks back at earlier.*allow_history_loss"):
            session.infer({})
        assert session.reconnects == 0


def test_history_may_be_lost_where_that_is_allowed() -> None:
    def second(connection: ServerConnection) -> None:
        say_ready(connection, every_step=True)
        answering(connection)

    def first(connection: ServerConnection) -> None:
        gone(connection, every_step=True)

    allowing = {"allow_history_loss": True}
    with speaking(first, second) as port, client(port, **allowing).new_session() as session:
        assert session.infer({}) == [{"number": 2}]
        assert session.reconnects == 1


@pytest.mark.parametrize("options", [{"meta": {"request_ids": False}}, {"reconnect_timeout": 0}])
def test_where_it_would_be_wrong_or_is_not_wanted_a_lost_session_stays_lost(options: Any) -> None:
    connections: list[ServerConnection] = []
    meta = options.pop("meta", {})

    def script(connection: ServerConnection) -> None:
        connections.append(connection)
        gone(connection, **meta)

    with speaking(script) as port, client(port, **options).new_session() as session:
        with pytest.raises(ServerGone, match="connection lost"):
            session.infer({})
        assert len(connections) == 1


def test_one_request_costs_one_new_connection_at_most() -> None:
    with speaking(losing) as port, client(port).new_session() as session:
        with pytest.raises(ServerGone, match="connection lost"):
            session.infer({})
        assert session.reconnects == 1
        assert session.state is SessionState.CLOSED


@pytest.mark.parametrize("code", [1003, 1007, 1008])
def test_a_frame_that_the_server_refuses_is_not_sent_again(code: int) -> None:
    def script(connection: ServerConnection) -> None:
        say_ready(connection)
        hear(connection)
        connection.close(code, "no")

    with speaking(script) as port, client(port).new_session() as session:
        with pytest.raises(ServerGone, match=f"closed with {code} no"):
            session.infer({})
        assert session.reconnects == 0


def test_a_frame_too_big_for_the_server_is_named_with_its_size() -> None:
    with (
        serving(Source(["010000"]), max_message_bytes=1000) as port,
        client(port).new_session() as session,
    ):
        with pytest.raises(ServerGone, match=r"1009.*frame had 20\d\d bytes.*jpeg_quality"):
            session.infer({"grip": 0.5, "noise": np.zeros(2000, np.uint8)})
        assert session.reconnects == 0


@pytest.mark.parametrize(
    ("contract", "says"),
    [
        ({"fps": float("nan")}, "holds the number nan"),
        ({"fps": -15}, "field 'fps'"),
        ({"inputs": "grip"}, "field 'inputs'"),
        ({"inputs": ["\x1b]0;title\x07"]}, "field 'inputs.0'"),
        ({"codec": {"name": "x", "spec": 5}}, "field 'codec.spec'"),
        ({"n_action_steps": 0}, "field 'n_action_steps'"),
        ([], "expected a valid dictionary"),
    ],
)
def test_a_contract_that_is_none_is_refused_when_the_server_is_ready(
    contract: Any, says: str
) -> None:
    def script(connection: ServerConnection) -> None:
        say_ready(connection, contract=contract)
        with contextlib.suppress(Exception):
            connection.recv(timeout=20)

    wrong = f"malformed ready message: the contract of.*{says}"
    with speaking(script) as port, pytest.raises(SessionError, match=wrong) as caught:
        client(port).new_session()
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("meta", [{"checkpoint_id": "020000"}, {"contract": {"fps": 10}}])
def test_another_checkpoint_in_its_place_is_refused(meta: Any) -> None:
    def second(connection: ServerConnection) -> None:
        say_ready(connection, **meta)
        answering(connection)

    with speaking(losing, second) as port, client(port).new_session() as session:
        with pytest.raises(ServerGone, match=f"came back with another {next(iter(meta))}"):
            session.infer({})
        assert session.reconnects == 0


@pytest.fixture
def waiting() -> Iterator[tuple[int, threading.Event]]:
    asked = threading.Event()

    def script(connection: ServerConnection) -> None:
        say_ready(connection)
        hear(connection)
        asked.set()
        connection.recv(timeout=20)

    with speaking(script) as port:
        yield port, asked


def test_closing_from_another_thread_ends_an_inference(
    waiting: tuple[int, threading.Event],
) -> None:
    port, asked = waiting
    raised: list[BaseException] = []
    session = client(port).new_session()

    def infer() -> None:
        try:
            session.infer({})
        except SessionError as error:
            raised.append(error)

    thread = threading.Thread(target=infer)
    thread.start()
    assert asked.wait(20)
    session.close()
    thread.join(20)
    assert isinstance(raised[0], ServerGone)
    assert session.reconnects == 0


def test_images_go_as_jpeg_where_the_server_takes_it() -> None:
    seen: list[np.ndarray[Any, Any]] = []
    sizes: list[int] = []

    def script(connection: ServerConnection, **meta: Any) -> None:
        say_ready(connection, **meta)
        frame = connection.recv(timeout=20)
        sizes.append(len(frame))
        assert isinstance(frame, bytes)
        request = wire.unpack(frame)
        seen.append(request["observation"]["image.wrist"])
        reply(connection, request["request_id"])

    def without(connection: ServerConnection) -> None:
        script(connection, jpeg=False)

    rows, columns = np.mgrid[:48, :64]
    image = np.stack([rows * 2, columns, 200 - rows], axis=-1).astype(np.uint8)
    with speaking(script, without) as port:
        for _ in range(2):
            with client(port, jpeg_quality=90).new_session() as session:
                session.infer({"image.wrist": image})
    assert sizes[0] < 2000 < image.nbytes < sizes[1]
    assert np.abs(seen[0].astype(int) - image).max() < 10
    np.testing.assert_array_equal(seen[1], image)


def test_whatever_a_server_sends_is_an_error_of_the_session_or_an_answer() -> None:
    rng = random.Random(0)
    strange: list[Any] = [None, 7, "x", [1], {"a": 1}, np.zeros(3), 2**60, b"x", True]
    rounds = 150

    def script(connection: ServerConnection) -> None:
        meta = {**OURS, rng.choice(["contract", "jpeg", "every_step"]): rng.choice(strange)}
        say(connection, {"status": "ready", "meta": rng.choice([meta, meta, *strange])})
        for _ in range(5):
            number = mapped(wire.unpack(connection.recv(timeout=20))).get("request_id")  # type: ignore[arg-type]
            answer: dict[Any, Any] = {"request_id": number, "result": []}
            for key in rng.sample(["result", "error", "code", "retry_after_ms", "timing"], 2):
                answer[key] = rng.choice([*strange, "busy"])
            say(connection, rng.choice([answer, answer, answer, *strange]))

    answers, refused = 0, 0
    with speaking(script) as port:
        options = {"request_timeout": 0.05, "reconnect_timeout": 0}
        for _ in range(rounds):
            try:
                with client(port, **options).new_session() as session:
                    for _ in range(5):
                        answers += isinstance(session.infer({"grip": 0.5}), list)
            except SessionError:
                refused += 1
    assert answers > 10
    assert refused > 10


def mapped(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}
