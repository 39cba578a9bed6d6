"""Our client against the server of public Positronic 0.2.1, unmodified."""

import subprocess
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from positronic.errors import SessionError
from positronic.offboard.client import InferenceClient, RemotePolicy
from positronic.offboard.serving.process import bind
from tests.interop.clients.positronic_0_2_1_server import HOME
from tests.interop.conftest import CLIENTS, Public

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def port(public: Public) -> Iterator[int]:
    with bind("127.0.0.1", 0) as listener:
        port: int = listener.getsockname()[1]
    python = public("positronic-0.2.1") / "python"
    script = CLIENTS / "positronic_0_2_1_server.py"
    process = subprocess.Popen(
        [python, "-I", script, str(port)], cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    yield port
    process.terminate()
    process.communicate(timeout=30)


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
