"""Servers that mean harm: a client ends with an error of the session, and its terminal obeys none.

The counterpart of ``test_fuzzed_frames.py``.
"""

import contextlib
import json
import math
import random
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np
import pytest
from websockets.sync.server import ServerConnection

from positronic.codec import Image, Parallel
from positronic.codec.contract import Contract
from positronic.errors import SessionError
from positronic.offboard import client as client_module
from positronic.offboard import messages, ready, wire
from positronic.offboard.link import mapping
from positronic.offboard.messages import RequestFilter, image_sizes
from positronic.offboard.wire import fold
from tests.mutations import mutations as json_mutations
from tests.positronic.offboard.faults import mutations as frames
from tests.positronic.offboard.faults.mutations import Honest
from tests.positronic.offboard.scripted import OURS, client, hear, say, say_ready, speaking

HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\x9b31m\u202e" + "x" * 5000
ACTIONS: list[dict[str, Any]] = [
    {
        "robot_command": {"type": "cartesian_pos", "pose": np.linspace(0, 1, 7)},
        "target_grip": 0.5,
        "timestamp": i / 15,
    }
    for i in range(5)
]


def contract() -> dict[str, Any]:
    images = Image("a", "image.wrist", (32, 48)), Image("b", "image.side", (16, 16))
    codec = Parallel(images)
    return Contract.of(codec, fps=15).to_json()


READY = {**OURS, "contract": contract(), "action_fps": 15.0}


def honest() -> Honest:
    """What a server of ours says: ready, and answers with and without columns."""
    said = [
        {"status": "ready", "meta": READY},
        {"request_id": 1, "result": ACTIONS},
        {"result": ACTIONS},
        {"request_id": 1, "chunk": {"count": len(ACTIONS), "columns": fold(ACTIONS)}},
        {"request_id": 1, "error": "no such signal", "code": "invalid"},
        {"status": "loading", "message": "Loading checkpoint 010000..."},
    ]
    return Honest({"contract": contract(), "result": ACTIONS}, [wire.pack(each) for each in said])


def damaged(seed: int, count: int) -> Iterator[bytes]:
    """Frames damaged as bytes, or as values within a message that is well formed."""
    rng, whole = random.Random(seed), honest()
    strange: list[Any] = [
        None,
        True,
        -1,
        2**63,
        math.nan,
        math.inf,
        HOSTILE,
        b"\0" * 9,
        [],
        {},
        [[[]]],
    ]
    strange += [
        {},
        [[[]]],
        np.array(np.nan),
        np.array(["x"]),
        {1: 2},
        {b"a": HOSTILE},
        np.zeros((0, 3)),
        "busy",
    ]
    for number in range(count):
        frame = rng.choice(whole.frames)
        if number % 2:
            yield rng.choice(frames.MUTATORS[:8])(rng, bytearray(frame), whole)
            continue
        message: Any = wire.unpack(frame)
        part: Any = message
        # Walk to some place, and put something else there.
        while True:
            keys = list(part) if isinstance(part, dict) else range(len(part))
            key = rng.choice(list(keys))
            if isinstance(part[key], dict | list) and part[key] and rng.random() < 0.8:
                part = part[key]
                continue
            part[key] = rng.choice(strange)
            break
        with contextlib.suppress(SessionError):
            yield wire.pack(message)


def take(frame: bytes) -> list[Any]:
    """Do with a frame all that a client does with one, but for waiting for it."""
    message = wire.unpack(frame)
    if not isinstance(message, dict):
        raise SessionError("no map")
    if "meta" in message:
        meta = ready.meta(mapping(message["meta"]), "ws://there")
        RequestFilter(meta.get("contract"))({"image.wrist": np.zeros((8, 8, 3), np.uint8)})
    if "error" in message:
        raise SessionError(messages.error(message["error"]))
    return messages.actions(message) if {"result", "chunk"} & message.keys() else []


def test_ten_thousand_damaged_messages_of_a_server_are_errors_of_the_session() -> None:
    refused, taken = [], 0
    for frame in damaged(0, 12_000):
        try:
            actions = take(frame)
        except SessionError as error:
            refused.append(str(error))
            continue
        taken += 1
        for action in actions:
            assert math.isfinite(action.get("timestamp", 0.0))
            assert math.isfinite(action.get("target_grip", 0.0))
            command = action.get("robot_command", {})
            pose = np.asarray(command.get("pose", 0.0))
            assert pose.dtype.kind != "f" or np.isfinite(pose).all()
    assert taken > 1000
    assert len(refused) > 5000
    assert not [error for error in refused if not error.isprintable() or len(error) > 2000]


def test_ten_thousand_damaged_contracts_and_lists_of_models_are_errors_of_the_session() -> None:
    refused: list[str] = []
    for content in json_mutations(READY, 6000):
        try:
            meta = ready.meta(mapping(json.loads(content)), "ws://there")
            image_sizes(mapping(meta.get("contract")))
        except SessionError as error:
            refused.append(str(error))
        except (ValueError, RecursionError):
            pass  # no JSON any more, which msgpack is in its place
    for content in json_mutations({"models": ["010000", "020000", 30000]}, 6000, seed=1):
        try:
            assert all(name.isprintable() for name in ready.models(content, "ws://there"))
        except SessionError as error:
            refused.append(str(error))
    assert len(refused) > 3000
    assert not [error for error in refused if not error.isprintable()]


def test_the_messages_are_good_ones_until_they_are_damaged() -> None:
    frames_ = honest().frames
    assert take(frames_[0]) == take(frames_[5]) == []
    for frame in frames_[1:4]:
        assert len(take(frame)) == len(ACTIONS)
    assert image_sizes(contract()) == {"image.wrist": (32, 48), "image.side": (16, 16)}


@pytest.mark.parametrize(
    "changed",
    [
        {"target_grip": math.nan},
        {"target_grip": np.float32(np.inf)},
        {"timestamp": math.inf},
        {"timestamp": "soon"},
        {"robot_command": {"type": "cartesian_pos", "pose": np.array([0, np.nan, 1])}},
        {"robot_command": {"type": "cartesian_pos", "pose": [0.0, -math.inf]}},
        {"robot_command": {"type": 7}},
        {"robot_command": [1, 2]},
        {"robot_command": {"type": "x", "deep": [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]}},
        {"when": np.array(["2026-01-01"], "M8[s]")},
        {7: 1},
    ],
)
@pytest.mark.parametrize("columns", [False, True])
def test_no_robot_gets_what_is_no_command(changed: dict[Any, Any], columns: bool) -> None:
    result = [{**action, **changed} for action in ACTIONS]
    folded = fold(result) if columns else None
    chunk = {"chunk": {"count": len(result), "columns": folded}}
    with pytest.raises(SessionError, match=r"malformed reply|not finite"):
        messages.actions(chunk if folded is not None else {"result": result})


def hostile(connection: ServerConnection) -> None:
    """Put escape sequences wherever text can stand."""
    for _ in range(2):  # the first one is held back
        say(connection, {"status": "loading", "message": HOSTILE})
    say_ready(connection, request_ids=False)
    hear(connection)
    for _ in range(2):
        say(connection, {"status": "waiting", "message": HOSTILE})
    say(connection, {"error": HOSTILE})
    hear(connection)
    say(connection, {HOSTILE: 1})
    hear(connection)
    connection.close(1008, "\x1b[2J\x1b]0;owned\x07")


def is_plain(text: str) -> bool:
    return all(c.isprintable() or c == "\n" for c in text) and len(text) < 3000


def test_nothing_that_a_server_says_reaches_the_terminal_as_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with speaking(hostile) as port, client(port).new_session() as session:
        for _ in range(3):
            with pytest.raises(SessionError) as error:
                session.infer({"grip": 0})
            assert is_plain(str(error.value))
    said = capsys.readouterr().err
    assert said.count("server: ") == 2
    assert is_plain(said)


@pytest.mark.parametrize(
    "say_first",
    [
        {"status": "error", "error": HOSTILE},
        {"status": "error", "error": {HOSTILE: [HOSTILE] * 500}},
        {"status": "ready", "meta": {**READY, "contract": {"inputs": 5}}},
        {"status": "ready", "meta": {**READY, "contract": {"codec": {"spec": [HOSTILE]}}}},
        {"status": "ready", "meta": {**READY, "action_fps": math.nan}},
        {"status": "ready", "meta": {**READY, "action_fps": -15}},
        {"status": "ready", "meta": {**READY, "checkpoint_id": HOSTILE}},
        {"status": "ready", "meta": {**READY, "checkpoint_id": {HOSTILE: 1}}},
    ],
)
def test_a_refusal_or_a_ready_message_that_means_harm_is_one_printable_line(
    say_first: dict[str, Any],
) -> None:
    def script(connection: ServerConnection) -> None:
        say(connection, say_first)
        connection.recv(timeout=20)

    with speaking(script) as port, pytest.raises(SessionError) as error:
        client(port).new_session()
    assert is_plain(str(error.value))
    assert "\n" not in str(error.value)


def test_a_server_that_gets_ready_again_and_again_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("positronic.offboard.link.MAX_STATUSES", 50)

    def script(connection: ServerConnection) -> None:
        for _ in range(100):
            say(connection, {"status": "loading", "message": "Loading..."})
        connection.recv(timeout=20)

    heard: list[str] = []
    with speaking(script) as port, pytest.raises(SessionError, match="again and again"):
        client(port, on_status=heard.append).new_session()
    assert len(heard) == 50


def test_a_server_that_says_wait_for_ever_does_not_outlast_the_time_out() -> None:
    def script(connection: ServerConnection) -> None:
        say_ready(connection)
        hear(connection)
        with contextlib.suppress(Exception):
            while True:
                say(connection, {"status": "waiting", "message": "Waiting..."})

    with (
        speaking(script) as port,
        client(port, request_timeout=0.5, on_status=lambda _: None).new_session() as session,
        pytest.raises(SessionError, match=r"did not answer within 0\.5 s"),
    ):
        session.infer({"grip": 0})


def test_a_message_larger_than_any_answer_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("positronic.offboard.link.MAX_REPLY_BYTES", 100_000)

    def script(connection: ServerConnection) -> None:
        say_ready(connection)
        hear(connection)
        say(connection, {"result": [], "padding": bytes(200_000)})

    with (
        speaking(script) as port,
        client(port, reconnect_timeout=0).new_session() as session,
        pytest.raises(SessionError),
    ):
        session.infer({"grip": 0})


def test_a_few_bytes_do_not_become_gigabytes_of_actions() -> None:
    columns = {str(number): ["same", 1] for number in range(4000)}
    assert len(wire.pack(columns)) < 60_000
    with pytest.raises(SessionError, match="4096 actions of so many columns are too many"):
        messages.actions({"chunk": {"count": 4096, "columns": columns}})


def test_arrays_of_objects_are_never_made() -> None:
    array = {b"__ndarray__": True, b"data": b"\0" * 8, b"dtype": "|O", b"shape": [1]}
    with pytest.raises(SessionError, match="malformed array"):
        take(msgpack.packb({"result": [{"target_grip": array}]}))


@contextlib.contextmanager
def http_server(*parts: bytes, pause_s: float = 0.0) -> Iterator[int]:
    """Answer one connection with these bytes, with so long between them."""
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def answer() -> None:
        with contextlib.suppress(OSError):
            opened, _ = listener.accept()
            with opened:
                opened.settimeout(20)
                opened.recv(1 << 16)
                for part in parts:
                    opened.sendall(part)
                    if done.wait(pause_s):
                        return

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        done.set()
        listener.close()
        thread.join(20)
        assert not thread.is_alive(), "the server's thread did not end within 20 s"


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"[" * 100_000,
        OK + b'{"models": {"a": 1}}',
        OK + b'{"models": [[1]]}',
        OK + b'{"models": [1.5]}',
        OK + b'{"models": "abc"}',
        OK + b'{"models": [' + b"9" * 5000 + b"]}",
        OK + b'{"models": ["' + b"\xff" + b'"]}',
        OK + b" " * (5 << 20),
        b"\x1b[2J\x1b]0;owned\x07\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 \x1b[2J OK\r\n\r\n",
        b"",
    ],
)
def test_a_list_of_models_that_is_none_is_one_printable_line(answer: bytes) -> None:
    with http_server(answer) as port, pytest.raises(SessionError) as error:
        client(port).models()
    assert is_plain(str(error.value))
    assert "\n" not in str(error.value)


def test_names_of_models_are_printable() -> None:
    body = json.dumps({"models": ["\x1b[2J", "010000", 20000]}).encode()
    with http_server(OK + body) as port:
        assert client(port).models() == [r"\x1b[2J", "010000", "20000"]


def test_a_list_of_models_that_drips_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "LIST_TIMEOUT_S", 0.5)
    drips = [OK, *[b" "] * 400]
    began = time.monotonic()
    with http_server(*drips, pause_s=0.1) as port, pytest.raises(SessionError) as error:
        client(port, connect_timeout=5).models()
    assert is_plain(str(error.value))
    assert time.monotonic() - began < 30, "it takes 40 s to its end"
