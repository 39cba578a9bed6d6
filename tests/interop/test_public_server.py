"""Our client against the servers of public Positronic 0.2.1 and 0.4.1, unmodified."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from positronic.errors import SessionError
from positronic.offboard.client import InferenceClient, RemotePolicy
from positronic.offboard.serving.process import bind
from tests.interop.clients.positronic_0_2_1_server import HOME
from tests.interop.conftest import CLIENTS, Public

pytestmark = pytest.mark.e2e


@contextmanager
def serving(public: Public, version: str, *arguments: str) -> Iterator[int]:
    """Start the server of a version of Positronic; its port."""
    with bind("127.0.0.1", 0) as listener:
        port: int = listener.getsockname()[1]
    python = public(f"positronic-{version}") / "python"
    script = CLIENTS / f"positronic_{version.replace('.', '_')}_server.py"
    process = subprocess.Popen(
        [python, "-I", script, str(port), *arguments],
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        yield port
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.fixture(scope="module")
def port(public: Public) -> Iterator[int]:
    with serving(public, "0.2.1") as port:
        yield port


def observation(z: float = 0.3) -> dict[str, Any]:
    pose = np.array([0.4, 0.1, z, 1.0, 0.0, 0.0, 0.0])
    image = np.zeros((240, 320, 3), np.uint8)
    return {"robot_state.ee_pose": pose, "grip": 1.0, "image.wrist": image, "task": "climb"}


def test_our_client_waits_for_it_lists_infers_and_goes_on_after_an_error(port: int) -> None:
    client = InferenceClient("127.0.0.1", port, connect_timeout=60)
    with client.new_session() as session:
        assert session.meta["type"] == "climb"
        assert client.models() == ["climb", "again"]
        actions = session.infer(observation(z=0.3))
        heights = [action["robot_command"]["pose"][2] for action in actions]
        np.testing.assert_allclose(heights, [0.31, 0.32, 0.33, 0.34, 0.35])
        np.testing.assert_array_equal(actions[0]["robot_command"]["pose"][3:], HOME[3:])
        with pytest.raises(SessionError, match=r"could not infer: 'robot_state\.ee_pose'"):
            session.infer({"grip": 1.0})
        assert session.infer(observation())[0]["timestamp"] == 0.0


def test_another_model_is_found_and_an_unknown_one_is_not(port: int) -> None:
    client = InferenceClient("127.0.0.1", port, connect_timeout=60)
    with client.new_session("again") as session:
        assert len(session.infer(observation())) == 5
    with pytest.raises(SessionError, match="Policy not found: 77"):
        client.new_session("77")


def test_a_robot_plays_its_chunks_in_time(port: int) -> None:
    from positronic.policy.chunk_player import ChunkPlayer

    policy = RemotePolicy("127.0.0.1", port, connect_timeout=60)
    with policy.new_session() as session:
        player = ChunkPlayer(session)
        began = time.monotonic()
        steps = [player.action(observation(), i / 20) for i in range(20)]
        assert time.monotonic() - began < 30
    heights = [step["robot_command"]["pose"][2] for step in steps]
    # Twenty steps a second, ten actions a second, and a chunk of five: each is held for two steps.
    np.testing.assert_allclose(heights, np.repeat([0.31, 0.32, 0.33, 0.34, 0.35] * 2, 2))
    assert player.inferences == 2


@pytest.mark.parametrize("flip", [False, True])
def test_what_0_4_1_declares_is_done(public: Public, flip: bool) -> None:
    """The server adds hundredths to the grip as it counts it, and refuses other image sizes."""
    with serving(public, "0.4.1", *["flip"] * flip) as port:
        policy = RemotePolicy("127.0.0.1", port, connect_timeout=60)
        with policy.new_session() as session:
            assert session.meta["action_fps"] == 10
            actions = session.infer({**observation(z=0.3), "grip": 0.485})
            assert session.infer(observation())[0]["timestamp"] == 0.0
            assert session.timing["served_ms"] > 0
    *played, end = actions
    assert end == {"timestamp": pytest.approx(0.4)}
    assert [a["timestamp"] for a in played] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    heights = [a["robot_command"]["pose"][2] for a in played]
    np.testing.assert_allclose(heights, [0.31, 0.32, 0.33, 0.34])
    assert played[0]["robot_command"]["type"] == "cartesian_pos"
    # Counted as open it passes 0.5 while it grows; counted as closed it is beyond from the start.
    grips = [a["target_grip"] for a in played]
    assert grips == ([0.0, 0.0, 1.0, 1.0] if flip else [0.0, 0.0, 0.0, 0.0])


def test_a_robot_plays_the_chunks_of_0_4_1_at_the_declared_rate(public: Public) -> None:
    from positronic.policy.chunk_player import ChunkPlayer

    with serving(public, "0.4.1") as port:
        policy = RemotePolicy("127.0.0.1", port, connect_timeout=60)
        with policy.new_session() as session:
            player = ChunkPlayer(session)
            steps = [player.action(observation(), i / 20) for i in range(16)]
    heights = [step["robot_command"]["pose"][2] for step in steps]
    np.testing.assert_allclose(heights, np.repeat([0.31, 0.32, 0.33, 0.34] * 2, 2))
    assert player.inferences == 2
