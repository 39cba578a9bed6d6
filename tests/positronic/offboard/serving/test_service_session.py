import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from positronic.offboard import wire
from positronic.offboard.models.batching import Batching
from positronic.offboard.wire import unfold
from tests.positronic.offboard.running import ask, get, held, raw, ready, receive, serving
from tests.positronic.offboard.small_models import CountingSession, Source
from tests.waiting import until

TIMING = {"pre_ms", "queue_ms", "infer_ms", "post_ms", "batch_size"}


@pytest.fixture
def source() -> Source:
    return Source(["010000"])


@pytest.fixture
def port(source: Source) -> Iterator[int]:
    with serving(source) as port:
        yield port


def envelope(connection: ClientConnection, number: Any, **obs: Any) -> dict[str, Any]:
    connection.send(wire.pack({"request_id": number, "observation": obs}))
    return receive(connection)


def actions(reply: dict[str, Any]) -> list[Any]:
    return unfold(reply["chunk"]["columns"], reply["chunk"]["count"])


def failures(port: int) -> dict[str, int]:
    counted: dict[str, int] = get(port, "/api/v1/status")[1]["failures"]
    return counted


def test_the_handshake_says_what_a_client_may_use(port: int) -> None:
    with raw(port) as one, raw(port) as two:
        first, second = ready(one), ready(two)
    assert first["request_ids"] is True
    assert first["jpeg"] is True
    assert first["session"] != second["session"]


def test_a_reply_bears_the_number_of_its_request_and_says_where_its_time_went(port: int) -> None:
    with raw(port) as session:
        ready(session)
        for number in (7, 2**40, 0):
            reply = envelope(session, number, grip=0.5)
            assert set(reply) == {"request_id", "chunk", "timing"}
            assert reply["request_id"] == number
            assert set(reply["timing"]) == TIMING
            assert reply["timing"]["batch_size"] == 1
            assert all(value >= 0 for value in reply["timing"].values())
        reply = envelope(session, 8, task="x")
        assert reply == {
            "request_id": 8,
            "error": "needs grip; present: task",
            "code": "invalid",
        }


def test_time_is_booked_where_it_was_spent(port: int) -> None:
    with raw(port) as session:
        ready(session)
        timing = envelope(session, 1, grip=0.5, sleep=0.2)["timing"]
    assert timing["infer_ms"] >= 200
    assert max(timing["pre_ms"], timing["queue_ms"], timing["post_ms"]) < 200


def test_actions_that_the_session_still_has_need_no_model(source: Source, port: int) -> None:
    with raw(port) as session:
        ready(session)
        reply = envelope(session, 1, grip=0.5, queued=True)
        assert actions(reply)[0]["target_grip"] == -1
        assert reply["timing"]["batch_size"] == reply["timing"]["infer_ms"] == 0
    assert [policy.batches for policy in source.living] == [[]]


@pytest.mark.parametrize("number", [None, 1.5, "1", True, [1]])
def test_a_request_id_that_is_none_is_named(port: int, number: object) -> None:
    with raw(port) as session:
        ready(session)
        reply = envelope(session, number, grip=0)
        assert (reply["request_id"], reply["code"]) == (None, "malformed")
        assert "a request_id is an integer" in reply["error"]
        assert actions(envelope(session, 1, grip=0))


@pytest.mark.parametrize("extra", [{"more": 1}, {}])
def test_only_exactly_an_envelope_is_one(port: int, extra: dict[str, int]) -> None:
    message = {"request_id": 1, "grip": 0.5, **extra}
    with raw(port) as session:
        ready(session)
        assert set(ask(session, **message)) == {"result"}


def test_the_number_of_a_request_with_a_damaged_image_is_found(port: int) -> None:
    image = {b"__ndarray__": True, b"data": b"", b"dtype": "|u1", b"shape": [4, 4, 3]}
    with raw(port) as session:
        ready(session)
        reply = envelope(session, 5, grip=0, image=image)
        assert (reply["request_id"], reply["code"]) == (5, "malformed")
        assert "malformed array" in reply["error"]


def test_an_internal_error_has_its_number_and_nothing_else(port: int) -> None:
    with raw(port) as session:
        ready(session)
        reply = envelope(session, 5, grip=0, explode=True)
    assert reply == {
        "request_id": 5,
        "error": "internal error (RuntimeError); see the server's log",
        "code": "internal",
    }
    assert failures(port) == {"internal": 1}


def test_more_requests_than_may_wait_are_busy_and_may_come_again(source: Source) -> None:
    with (
        serving(source, batching=Batching(max_batch=1, max_queue=1)) as port,
        contextlib.ExitStack() as stack,
    ):
        runs, waits, surplus, public = (stack.enter_context(raw(port)) for _ in range(4))
        for session in (runs, waits, surplus, public):
            ready(session)
        with held(source):
            (policy,) = source.living
            runs.send(wire.pack({"grip": 0.1}))
            assert policy.entered.acquire(timeout=10)
            waits.send(wire.pack({"grip": 0.2}))
            until(
                lambda: get(port, "/api/v1/status")[1]["models"][0]["waiting"],
                "a request to wait for the model",
            )
            reply = envelope(surplus, 3, grip=0.3)
            assert (reply["request_id"], reply["code"]) == (3, "busy")
            assert reply["retry_after_ms"] > 0
            assert "the server is busy" in reply["error"]
            assert set(ask(public, grip=0)) == {"error"}
        assert receive(runs)["result"][0]["target_grip"] == 0.1
        assert receive(waits)["result"][0]["target_grip"] == 0.2
        assert actions(envelope(surplus, 4, grip=0.3))
        assert failures(port) == {"busy": 2}


def test_a_request_that_takes_too_long_is_answered_and_its_session_goes_on(source: Source) -> None:
    with serving(source, request_timeout_s=0.1) as port, raw(port) as session:
        ready(session)
        with held(source) as release:
            reply = envelope(session, 1, grip=0.1)
            assert (reply["request_id"], reply["code"]) == (1, "timeout")
            assert reply["error"].startswith("no answer within 0.1 s")
            release.set()
        # The late answer is nobody's: the next request gets its own.
        assert actions(envelope(session, 2, grip=0.2))[0]["target_grip"] == 0.2
        assert failures(port) == {"timeout": 1}


def test_a_session_is_never_in_two_threads_even_if_one_was_given_up(source: Source) -> None:
    release = threading.Event()
    inside, most = 0, 0

    class SlowSession(CountingSession):
        def prepare(self, obs: Mapping[str, Any]) -> Any:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            if obs.get("slow"):
                assert release.wait(20)
            inside -= 1
            return super().prepare(obs)

    with serving(source, request_timeout_s=0.1) as port:
        (policy,) = source.living
        policy.new_session = lambda context=None: SlowSession(policy)  # type: ignore[method-assign]
        with raw(port) as session:
            ready(session)
            assert envelope(session, 1, grip=0.1, slow=True)["code"] == "timeout"
            assert envelope(session, 2, grip=0.2)["code"] == "timeout"
            release.set()
            assert actions(envelope(session, 3, grip=0.3))[0]["target_grip"] == 0.3
    assert most == 1


def test_who_waits_too_long_in_the_queue_leaves_it(source: Source) -> None:
    batching = Batching(max_batch=1, max_queue=1)
    with (
        serving(source, batching=batching, request_timeout_s=0.2) as port,
        raw(port) as runs,
        raw(port) as waits,
    ):
        ready(runs)
        ready(waits)
        with held(source):
            runs.send(wire.pack({"grip": 0.1}))
            (policy,) = source.living
            assert policy.entered.acquire(timeout=10)
            for number in range(3):
                assert envelope(waits, number, grip=0.2)["code"] == "timeout"
            assert get(port, "/api/v1/status")[1]["models"][0]["waiting"] == 0
        assert "no answer" in receive(runs)["error"]
        assert ask(runs, grip=0.4)["result"][0]["target_grip"] == 0.4
    assert [0.2] not in policy.batches


def test_who_asks_too_often_is_told_how_long_to_wait(source: Source) -> None:
    with serving(source, rate_limit=5) as port, raw(port) as greedy, raw(port) as other:
        ready(greedy)
        ready(other)
        replies = [envelope(greedy, number, grip=0) for number in range(8)]
        codes = [reply.get("code") for reply in replies]
        assert codes[:5] == [None] * 5
        assert "rate" in codes
        refused = replies[codes.index("rate")]
        assert 0 < refused["retry_after_ms"] <= 201
        assert "more than 5 requests a second" in refused["error"]
        assert ask(other, grip=0)["result"]
        time.sleep(refused["retry_after_ms"] / 1000)
        assert actions(envelope(greedy, 9, grip=0))


def test_more_sessions_than_allowed_are_refused_until_one_ends(source: Source) -> None:
    with serving(source, max_sessions=2) as port:
        with raw(port) as one, raw(port) as two:
            ready(one)
            ready(two)
            with raw(port) as three:
                message = receive(three)
                assert message["status"] == "error"
                assert "the server is full: all of its 2 sessions are in use" in message["error"]
                with pytest.raises(ConnectionClosed) as closed:
                    three.recv(timeout=10)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1013
            assert closed.value.rcvd.reason.startswith("the server is full")
            assert ask(one, grip=0)["result"]
        until(lambda: not get(port, "/api/v1/status")[1]["sessions"], "the sessions to end")
        with raw(port) as again:
            ready(again)
        assert failures(port) == {"busy": 1}


def test_sessions_that_wait_for_a_checkpoint_count_too(source: Source) -> None:
    source.hold("010000")
    with (
        serving(source, wait=False, max_sessions=1) as port,
        raw(port) as waiting,
    ):
        assert receive(waiting)["status"] == "loading"
        with raw(port) as other:
            assert "full" in receive(other)["error"]


def test_a_session_that_cannot_begin_is_refused_without_a_word_of_why(source: Source) -> None:
    def fail(context: object = None) -> CountingSession:
        raise RuntimeError("secret in /home/operator/file.py")

    with serving(source) as port:
        (policy,) = source.living
        policy.new_session = fail  # type: ignore[method-assign]
        with raw(port) as session:
            message = receive(session)
            with pytest.raises(ConnectionClosed) as closed:
                session.recv(timeout=10)
        assert message == {"status": "error", "error": "internal error; see the server's log"}
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1011
        assert failures(port) == {"internal": 1}
        assert get(port, "/api/v1/status")[1]["models"][0]["sessions"] == 0


def test_an_idle_session_is_closed_with_a_reason_and_a_working_one_is_not(source: Source) -> None:
    with serving(source, idle_timeout_s=0.3) as port, raw(port) as works, raw(port) as idle:
        ready(works)
        ready(idle)
        # Its work takes longer than it may be idle.
        assert ask(works, grip=0, sleep=0.5)["result"]
        with pytest.raises(ConnectionClosed) as closed:
            idle.recv(timeout=10)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "idle for 0.3 s")
        assert ask(works, grip=0)["result"]


def test_every_session_gives_back_what_it_holds(source: Source) -> None:
    with serving(source, idle_timeout_s=0.2) as port:
        (policy,) = source.living
        with raw(port) as leaves, raw(port) as dies, raw(port) as idles:
            for session in (leaves, dies, idles):
                ready(session)
            leaves.close()
            dies.send(wire.pack({"grip": 0, "sleep": 0.1}))
            dies.socket.shutdown(2)
            with pytest.raises(ConnectionClosed):
                idles.recv(timeout=10)
        until(lambda: not get(port, "/api/v1/status")[1]["sessions"], "the sessions to end")
        assert policy.closed == 3
        assert get(port, "/api/v1/status")[1]["models"][0]["sessions"] == 0


def test_a_client_that_dies_while_a_reply_is_due_is_counted(source: Source) -> None:
    with serving(source) as port:
        (policy,) = source.living
        with raw(port) as dies, held(source) as release:
            ready(dies)
            dies.send(wire.pack({"grip": 0}))
            assert policy.entered.acquire(timeout=10)
            dies.socket.shutdown(2)
            time.sleep(0.1)
            release.set()
        until(lambda: not get(port, "/api/v1/status")[1]["sessions"], "the sessions to end")
        assert failures(port) == {"disconnected": 1}


def test_a_frame_larger_than_allowed_ends_its_session_only(source: Source) -> None:
    with (
        serving(source, max_message_bytes=100_000) as port,
        raw(port) as good,
        raw(port) as big,
    ):
        ready(good)
        ready(big)
        assert ask(big, grip=0, x=np.zeros(90_000, np.uint8))["result"]
        with pytest.raises(ConnectionClosed) as closed:
            ask(big, grip=0, x=np.zeros(110_000, np.uint8))
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
        assert ask(good, grip=0)["result"]
