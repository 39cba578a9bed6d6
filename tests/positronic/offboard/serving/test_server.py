import contextlib
import random
import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from positronic.errors import CheckpointError
from positronic.offboard import wire
from positronic.offboard.serving import connection, handshake
from tests.positronic.offboard.running import (
    after_loading,
    ask,
    get,
    held,
    raw,
    ready,
    receive,
    serving,
)
from tests.positronic.offboard.small_models import NBYTES, Source
from tests.waiting import until


@pytest.fixture
def source() -> Source:
    return Source(["010000", "020000"], image_sizes={"image.wrist": [64, 48]})


@pytest.fixture
def port(source: Source) -> Iterator[int]:
    with serving(source) as port:
        yield port


def test_models_are_listed_anew_for_each_request(source: Source, port: int) -> None:
    assert get(port, "/api/v1/models") == (200, {"models": ["010000", "020000"]})
    source.names.append("030000")
    assert get(port, "/api/v1/models") == (200, {"models": ["010000", "020000", "030000"]})
    source.names.clear()
    assert get(port, "/api/v1/models") == (200, {"models": []})


def test_the_ready_message_says_what_every_public_client_needs(port: int) -> None:
    with raw(port) as session:
        meta = ready(session)
    assert meta["type"] == "counting"
    assert meta["checkpoint_id"] == "010000"
    assert (meta["host"], meta["port"]) == ("127.0.0.1", port)
    assert meta["compress_images"] is False
    assert meta["action_fps"] == 10.0
    assert isinstance(meta["positronic_version"], str)
    assert meta["local_stack"] == {
        "seq": [
            {"name": "chunked_schedule"},
            {"name": "restrict_image_size", "args": {"width": 64, "height": 48}},
        ]
    }


def test_a_model_without_images_asks_for_no_resizing() -> None:
    assert handshake.local_stack({}, {}) == {"seq": [{"name": "chunked_schedule"}]}


@pytest.mark.parametrize(
    ("grip", "is_turned"),
    [
        ({"open": 1.0, "closed": 0.0}, True),
        ({"open": 0.0, "closed": 1.0}, False),
        ({"open": 0.08, "closed": 0.0}, False),
    ],
)
def test_clients_whose_open_grip_is_0_are_told_to_turn_it(
    grip: dict[str, float], is_turned: bool
) -> None:
    stack = handshake.local_stack({}, grip)["seq"]
    assert ({"name": "flip_grip"} in stack) == is_turned


def test_a_client_that_ignores_timestamps_is_served(port: int) -> None:
    with raw(port) as session:
        ready(session)
        reply = ask(session, grip=1.0, **{"robot_state.q": np.zeros(7, np.float32)})
    assert set(reply) == {"result"}
    actions = reply["result"]
    assert [action["target_grip"] for action in actions] == [1.0, 1.0, 1.0]
    assert [action["timestamp"] for action in actions] == [0.0, 0.1, 0.2]


def test_deflate_is_declined_even_when_the_client_offers_it(port: int) -> None:
    with raw(port, compression="deflate") as session:
        assert session.response is not None
        assert "Sec-WebSocket-Extensions" not in session.response.headers
        ready(session)


def test_sessions_share_no_state_and_a_new_one_is_a_reset(port: int) -> None:
    with raw(port) as one, raw(port, "/api/v1/session/010000") as two:
        ready(one)
        ready(two)
        counts = [ask(s, grip=0)["result"][0]["count"] for s in (one, two, one, one, two)]
    assert counts == [1, 1, 2, 3, 2]
    with raw(port) as again:
        ready(again)
        assert ask(again, grip=0)["result"][0]["count"] == 1


def test_another_checkpoint_is_loaded_when_it_is_asked_for(source: Source, port: int) -> None:
    with raw(port, "/api/v1/session/020000") as session:
        assert ready(session)["checkpoint_id"] == "020000"
    assert sorted(source.loads) == ["010000", "020000"]


@pytest.mark.parametrize("path", ["99", "a/b", "%2e%2e%2fetc", "last%3Fx=1", "%E2%98%83"])
def test_an_unknown_checkpoint_is_refused_by_name(port: int, path: str) -> None:
    with raw(port, f"/api/v1/session/{path}") as session:
        message = receive(session)
        with pytest.raises(ConnectionClosed) as closed:
            session.recv(timeout=10)
    assert message["status"] == "error"
    assert message["error"].startswith("Checkpoint not found: ")
    assert message["error"].endswith(". Available: ['010000', '020000']")
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "Checkpoint not found")


def test_while_a_checkpoint_loads_the_client_is_told_and_others_go_on(
    source: Source, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshake, "STATUS_INTERVAL_S", 0.05)
    source.names.append("030000")
    gate = source.hold("020000")
    with raw(port) as first, raw(port, "/api/v1/session/020000") as second:
        ready(first)
        for _ in range(3):
            message = receive(second)
            assert message["status"] == "loading"
            assert message["message"].startswith("Loading checkpoint 020000...")
        with raw(port, "/api/v1/session/030000") as third:
            message = receive(third)
            assert message["status"] == "waiting"
            assert message["message"].startswith("Waiting for checkpoint 020000 to finish")
            assert ask(first, grip=0)["result"]
            gate.set()
            assert ready(second)["checkpoint_id"] == "020000"
            assert ready(third)["checkpoint_id"] == "030000"


def test_sessions_that_wait_for_one_checkpoint_load_it_once(
    source: Source, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshake, "STATUS_INTERVAL_S", 0.02)
    gate = source.hold("020000")
    with contextlib.ExitStack() as stack:
        opened = [raw(port, "/api/v1/session/020000") for _ in range(4)]
        sessions = [stack.enter_context(session) for session in opened]
        for session in sessions:
            assert receive(session)["status"] == "loading"
        sessions.pop().close()
        # Long enough for the server to see, at its next status frame, that one has left.
        time.sleep(0.3)
        gate.set()
        for session in sessions:
            assert ready(session)["checkpoint_id"] == "020000"
    assert source.loads.count("020000") == 1


def test_a_refused_client_has_time_to_read_why(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Positronic 0.2.1 uses its socket before it reads; see tests/interop.
    monkeypatch.setattr(connection, "READ_S", 20.0)
    with raw(port, "/api/v1/session/030000") as session:
        assert receive(session)["status"] == "error"
        with pytest.raises(TimeoutError):
            session.recv(timeout=0.1)


def test_a_checkpoint_that_cannot_be_loaded_refuses_its_session_only(
    source: Source, port: int
) -> None:
    source.broken["020000"] = CheckpointError("checkpoint run/checkpoints/020000 is incomplete")
    with raw(port) as good, raw(port, "/api/v1/session/020000") as bad:
        ready(good)
        message = after_loading(bad)
        assert message == {"status": "error", "error": str(source.broken["020000"])}
        with pytest.raises(ConnectionClosed) as closed:
            bad.recv(timeout=10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1011
        assert ask(good, grip=0)["result"]
    source.broken["020000"] = ValueError("secret in /home/operator/model")
    with raw(port, "/api/v1/session/020000") as bad:
        message = after_loading(bad)
        assert message == {"status": "error", "error": "Checkpoint 020000 failed to load"}
    source.broken.clear()
    with raw(port, "/api/v1/session/020000") as mended:
        assert ready(mended)["checkpoint_id"] == "020000"


def test_idle_models_are_forgotten_but_never_the_default_nor_those_in_use() -> None:
    source = Source(["010000", "020000", "030000", "040000"])
    with serving(source, memory_bytes=3 * NBYTES) as port:
        with raw(port, "/api/v1/session/020000") as held:
            ready(held)
            for name in ("030000", "040000", "010000"):
                with raw(port, f"/api/v1/session/{name}") as session:
                    ready(session)
            assert ask(held, grip=0)["result"]
        for name in ("020000", "040000", "030000"):
            with raw(port, f"/api/v1/session/{name}") as session:
                ready(session)
    assert source.loads == ["010000", "020000", "030000", "040000", "030000"]


def test_a_checkpoint_that_training_publishes_becomes_the_default_of_new_sessions() -> None:
    source = Source(["010000"])
    with serving(source, watch_interval_s=0.02) as port, raw(port) as old:
        assert ready(old)["checkpoint_id"] == "010000"
        gate = source.hold("020000")
        source.names.append("020000")
        until(lambda: "020000" in source.loads, "the new checkpoint to be loaded")
        with raw(port) as meanwhile:
            assert ready(meanwhile)["checkpoint_id"] == "010000"
        gate.set()
        until(
            lambda: get(port, "/readyz")[1]["default"] == "020000",
            "the new checkpoint to become the default",
        )
        assert ask(old, grip=0)["result"]
        with raw(port) as new:
            assert ready(new)["checkpoint_id"] == "020000"


def test_an_error_keeps_the_session_open_and_says_what_was_missing(port: int) -> None:
    with raw(port) as session:
        ready(session)
        assert ask(session, task="x") == {"error": "needs grip; present: task"}
        assert ask(session, grip=0)["result"][0]["count"] == 1


def test_nothing_internal_goes_over_the_wire(port: int) -> None:
    with raw(port) as session:
        ready(session)
        reply = ask(session, grip=0, explode=True)
        assert reply == {"error": "internal error (RuntimeError); see the server's log"}
        assert ask(session, grip=0)["result"]


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (b"\xc1", "malformed frame"),
        (b"", "malformed frame"),
        (wire.pack([1, 2]), "expected a map of observations, got a list"),
        (wire.pack({1: 2}), "keys of maps are text or bytes, got int"),
        ("text", "expected a binary frame"),
        (b"\x81\xa1a\x81\xc4\x0b__ndarray__\xc3", "malformed array"),
    ],
)
def test_a_malformed_frame_is_answered_and_the_session_stays(
    port: int, frame: bytes | str, says: str
) -> None:
    with raw(port) as session:
        ready(session)
        session.send(frame)
        assert says in receive(session)["error"]
        assert ask(session, grip=0)["result"]


def test_random_frames_are_all_answered(port: int) -> None:
    rng = random.Random(0)
    sample = wire.pack({"grip": 0.5, "image.wrist": np.zeros((4, 4, 3), np.uint8)})
    with raw(port) as session:
        ready(session)
        for _ in range(500):
            frame = bytearray(sample)
            for _ in range(rng.randrange(1, 5)):
                frame[rng.randrange(len(frame))] = rng.randrange(256)
            session.send(bytes(frame[: rng.randrange(len(frame) + 1)]))
            assert set(receive(session)) <= {"result", "error"}
        assert ask(session, grip=0)["result"]


def test_a_message_beyond_16_mib_ends_its_session_only(port: int) -> None:
    with raw(port) as good, raw(port) as big:
        ready(good)
        ready(big)
        assert ask(big, grip=0, x=bytes(15 * 2**20))["result"]
        with pytest.raises(ConnectionClosed) as closed:
            ask(big, grip=0, x=bytes(17 * 2**20))
        assert closed.value.rcvd is None or closed.value.rcvd.code == 1009
        assert ask(good, grip=0)["result"]


def test_while_one_session_infers_others_connect_and_pings_are_answered(source: Source) -> None:
    with serving(source) as port, raw(port) as slow:
        ready(slow)
        with held(source):
            (policy,) = source.living
            slow.send(wire.pack({"grip": 0}))
            assert policy.entered.acquire(timeout=10)
            assert slow.ping().wait(10)
            with raw(port) as other:
                ready(other)
                assert other.ping().wait(10)
                assert get(port, "/api/v1/models")[0] == 200
        assert receive(slow)["result"]


def test_a_client_that_dies_while_its_observation_is_answered_harms_nobody(port: int) -> None:
    with raw(port) as good:
        ready(good)
        for _ in range(3):
            with raw(port) as dead:
                ready(dead)
                dead.send(wire.pack({"grip": 0, "sleep": 0.1}))
                dead.socket.shutdown(socket.SHUT_RDWR)
        assert ask(good, grip=0)["result"]


def test_many_sessions_at_once_each_get_their_own_answers(port: int) -> None:
    wrong: list[object] = []

    def robot(number: int) -> None:
        with raw(port) as session:
            ready(session)
            for step in range(20):
                action = ask(session, grip=number)["result"][0]
                if (action["target_grip"], action["count"]) != (number, step + 1):
                    wrong.append(action)

    robots = [threading.Thread(target=robot, args=(number,)) for number in range(8)]
    for thread in robots:
        thread.start()
    for thread in robots:
        thread.join(30)
    assert wrong == []


def test_other_paths_are_no_sessions(port: int) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        raw(port, "/")


def test_when_the_default_cannot_be_loaded_the_server_ends_with_the_reason() -> None:
    source = Source(["010000"])
    source.broken["010000"] = CheckpointError("it is damaged")
    raised: list[object] = []

    def excepthook(args: threading.ExceptHookArgs) -> None:
        raised.append(args.exc_value)

    before, threading.excepthook = threading.excepthook, excepthook
    try:
        with serving(source, wait=False):
            deadline = time.monotonic() + 10
            while not raised and time.monotonic() < deadline:
                time.sleep(0.01)
    except RuntimeError:
        pass  # the loop that the fixture wants to stop is closed already
    finally:
        threading.excepthook = before
    assert raised == [source.broken["010000"]]
