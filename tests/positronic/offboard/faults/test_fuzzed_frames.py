"""Frames that no honest client sends: each is answered, and nobody else notices."""

import time
from typing import Any

import pytest
from websockets.sync.client import ClientConnection

from positronic.errors import SessionError
from positronic.offboard import wire
from tests.positronic.offboard.faults.mutations import (
    OBSERVATION,
    mutations,
    real_frames,
    resized_header,
)
from tests.positronic.offboard.faults.process import (
    FEW_OBJECTS,
    MIB,
    Neighbour,
    ServerProcess,
)
from tests.positronic.offboard.running import ask, raw, ready, receive

BURST = 25
# A reply quotes what was wrong, but never all of a strange frame.
LONGEST = 2000
EXTRA = {"code", "retry_after_ms", "timing", "request_id"}


def check(reply: dict[str, Any], frame: bytes) -> None:
    """A reply is a result, or an error in one line without this machine's paths."""
    # To a numbered request the result comes in columns.
    outcomes = {"result", "chunk", "error"}
    assert len(outcomes & set(reply)) == 1, (reply, frame[:200])
    assert set(reply) <= outcomes | EXTRA, (reply, frame[:200])
    error = reply.get("error", "")
    assert isinstance(error, str)
    assert len(error) < LONGEST, (error[:300], frame[:200])
    assert not any(part in error for part in ("\n", "Traceback", "site-packages", "/home", "/work"))


def exchange(session: ClientConnection, frames: list[bytes], number: int) -> int:
    """Send a burst, then an honest request; every reply is that of its own frame. Count errors."""
    for frame in frames:
        session.send(frame)
    session.send(wire.pack({"grip": number}))
    errors = 0
    for frame in frames:
        reply = receive(session)
        check(reply, frame)
        errors += "error" in reply
    assert receive(session)["result"][0]["target_grip"] == number
    return errors


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.e2e)])
def test_fuzzed_frames_are_answered_and_the_neighbour_gets_right_answers(
    server: ServerProcess, count: int
) -> None:
    began = time.monotonic()
    frames = list(mutations(0, count))
    with raw(server.port, max_size=None) as session:
        ready(session)
        # What is allocated once is there before it is counted.
        exchange(session, list(mutations(1, 300)), 1)
        before = server.holdings()
        with Neighbour(server.port) as neighbour:
            errors = 0
            for start in range(0, count, BURST):
                errors += exchange(session, frames[start : start + BURST], start)
    after = server.holdings()
    assert count // 2 < errors < count
    assert neighbour.asked > count // BURST // 2
    server.assert_lives()
    assert sum(after.more_than(before).values()) < FEW_OBJECTS, after.more_than(before)
    assert after.resident - before.resident < 8 * MIB
    print(f"{count} frames in {time.monotonic() - began:.1f} s beside {neighbour.asked} requests")


@pytest.mark.parametrize("seed", range(3))
def test_decoding_fuzzed_frames_raises_session_errors_only(seed: int) -> None:
    refused = []
    for frame in mutations(100 + seed, 3000):
        try:
            wire.unpack(frame)
        except SessionError as error:
            refused.append(str(error))
    assert 1000 < len(refused) < 2700
    assert not [error for error in refused if "\n" in error or len(error) > LONGEST]


def test_what_is_quoted_of_an_observation_stays_one_short_line(server: ServerProcess) -> None:
    with raw(server.port) as session:
        ready(session)
        for key in ("a\nb", "x" * 1_000_000, "é " * 5000):
            session.send(wire.pack({key: 1}))
            reply = receive(session)
            assert reply["error"].startswith("needs grip; present:")
            check(reply, b"")


def test_the_frames_are_real_ones_until_they_are_mutated(server: ServerProcess) -> None:
    with raw(server.port) as session:
        ready(session)
        for frame in real_frames(OBSERVATION):
            session.send(frame)
            assert "result" in receive(session), frame


def test_a_jpeg_that_claims_a_gigapixel_takes_no_memory(server: ServerProcess) -> None:
    with raw(server.port) as session:
        ready(session)
        ask(session, grip=0)
        before = server.peak
        for height, width in ((65500, 65500), (20000, 20000), (9000, 9000)):
            image = {b"__jpeg__": True, b"frames": [resized_header(height, width)], b"ndim": 3}
            reply = ask(session, **{"image.wrist": image})
            assert "error" in reply
        assert server.peak - before < 32 * MIB
