"""The command itself, with a policy that sees pictures: the same faults, for longer."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from positronic.offboard import wire
from positronic.offboard.wire import unfold
from positronic.vendors.lerobot import codecs
from tests.positronic.offboard.faults.mutations import mutations
from tests.positronic.offboard.faults.process import MIB, Command, command
from tests.positronic.offboard.faults.test_damaged_checkpoints import Robot
from tests.positronic.offboard.faults.test_fuzzed_frames import check
from tests.positronic.offboard.running import ask, raw, ready, receive
from tests.positronic.vendors.lerobot.small_policy import STEPS, make_run, observation
from tests.waiting import until

pytestmark = pytest.mark.e2e

SIZE = (48, 64)
FRAMES = 10_000
BURST = 25
SESSIONS = 1000


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs") / "seeing"
    return make_run(root, codecs.eepose_absolute(image_size=SIZE), (10000, 20000))


@pytest.fixture(scope="module")
def server(run: Path) -> Iterator[Command]:
    flags = ("--backend=openvino", "--rate_limit=0", "--batch_window_ms=0")
    with command(run.parent / "log", f"--checkpoints_dir={run}", *flags) as server:
        assert "with openvino float32" in server.wait_until_serving()
        yield server


def seen() -> dict[str, Any]:
    """What the policy reads, and no more; pictures of a few kilobytes."""
    wanted = ("robot_state.ee_pose", "grip", "image.wrist", "image.exterior", "task")
    return {key: value for key, value in observation(1, SIZE).items() if key in wanted}


class SeeingRobot(Robot):
    PAUSE_S = 0.02

    def observation(self, number: int) -> dict[str, Any]:
        return seen()


def actions(reply: dict[str, Any]) -> list[Any]:
    if "chunk" in reply:
        return unfold(reply["chunk"]["columns"], reply["chunk"]["count"])
    return list(reply.get("result", ()))


def resident(server: Command) -> int:
    return int(psutil.Process(server.process.pid).memory_info().rss)


def test_ten_thousand_fuzzed_observations_reach_no_policy_and_no_neighbour(
    server: Command,
) -> None:
    frames = list(mutations(7, FRAMES, seen()))
    with raw(server.port, max_size=None) as session, SeeingRobot(server.port) as robot:
        ready(session)
        errors = 0
        for start in range(0, FRAMES, BURST):
            burst = frames[start : start + BURST]
            for frame in burst:
                session.send(frame)
            for frame in burst:
                reply = receive(session)
                check(reply, frame)
                errors += "error" in reply
                # No frame is the server's fault.
                assert "internal error" not in reply.get("error", ""), (reply, frame[:300])
                for action in actions(reply):
                    assert np.isfinite(action["robot_command"]["pose"]).all(), frame[:300]
            if start == FRAMES // 4:
                before = resident(server)
        assert len(ask(session, **seen())["result"]) == STEPS
    assert FRAMES // 2 < errors < FRAMES
    assert robot.asked > 100
    assert resident(server) - before < 16 * MIB


def test_a_thousand_sessions_of_a_real_policy_leave_no_memory(server: Command) -> None:
    process = psutil.Process(server.process.pid)
    path = ("/api/v1/session", "/api/v1/session/10000")

    def come_and_go(count: int) -> None:
        for number in range(count):
            with raw(server.port, path[number % 2]) as session:
                ready(session)
                assert ask(session, **seen())["result"]

    come_and_go(200)
    before, files, threads = resident(server), process.num_fds(), process.num_threads()
    with SeeingRobot(server.port):
        come_and_go(SESSIONS)
    assert resident(server) - before < 8 * MIB
    assert process.num_fds() <= files + 2
    assert process.num_threads() <= threads + 2


def test_an_exported_policy_goes_on_when_its_checkpoint_and_export_are_damaged(
    run: Path, server: Command
) -> None:
    with SeeingRobot(server.port) as robot:
        for path in sorted(path for path in run.rglob("*") if path.is_file()):
            # In place, so that what maps a file into memory would see it.
            os.truncate(path, path.stat().st_size // 3)
        enough = robot.asked + 5
        with raw(server.port) as session:
            ready(session)
            until(
                lambda: len(ask(session, **seen())["result"]) == STEPS and robot.asked >= enough,
                "the robot to be answered five times more",
            )
        shutil.rmtree(run)
        assert len(robot.first) == STEPS


def test_sigterm_ends_it_when_its_last_session_has(server: Command) -> None:
    """The last test of this server."""
    with raw(server.port) as session:
        ready(session)
        session.send(wire.pack(seen()))
        server.process.send_signal(signal.SIGTERM)
        assert len(receive(session)["result"]) == STEPS
        assert len(ask(session, **seen())["result"]) == STEPS
    server.assert_ends()
