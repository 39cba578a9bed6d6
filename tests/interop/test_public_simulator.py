"""The simulators of public Positronic, unmodified, with their own Franka, on this server."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.sync.server import ServerConnection

from positronic import cli
from positronic.dataset import LocalDataset
from positronic.dataset.conventions import OPEN_1, adapted
from positronic.geom import pose_to_wire
from positronic.offboard.serving.handshake import local_stack
from positronic.vendors.lerobot.convert import COMMANDS
from tests.interop.conftest import Public, Server
from tests.positronic.dataset.conftest import FIXTURE
from tests.positronic.offboard.running import get
from tests.positronic.offboard.scripted import hear, say, say_ready, speaking

pytestmark = pytest.mark.e2e

# A chunk of 6 actions at 15 per second lasts 0.4 s: in this time a second one has begun.
SECONDS = 0.6


def run(command: Path, out: Path, *flags: str) -> None:
    """Run ``positronic-inference sim``."""
    done = subprocess.run(
        [command, "sim", "--policy=.remote", f"--output_dir={out}", *flags],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
        cwd=out.parent,
        env={**os.environ, "MUJOCO_GL": "egl"},
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def simulate(server: Server, command: Path, out: Path, *flags: str) -> None:
    """Run it and see that the server had nothing against it."""
    before = get(server.port, "/api/v1/status")[1]
    run(command, out, *flags)
    after = get(server.port, "/api/v1/status")[1]
    assert after["server"]["inferences"] - before["server"]["inferences"] >= 2
    assert after["failures"] == before["failures"]


def test_0_2_1_runs_two_iterations_and_records(
    public: Public, server: Server, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    simulate(
        server,
        public("positronic-0.2.1") / "positronic-inference",
        out,
        *("--driver.num_iterations=2", f"--driver.simulation_time={SECONDS}"),
        *("--policy.host=127.0.0.1", f"--policy.port={server.port}"),
    )
    # Its last iteration is never saved, whatever their number.
    dataset = LocalDataset(out)
    assert len(dataset) == 1
    episode = dataset[0]
    assert episode["inference.policy.server.checkpoint_id"] == "020000"
    assert episode["inference.policy.server.type"] == "act"
    assert episode["task"].startswith("Pick up the green cube")
    commands = episode["robot_commands.pose"]
    assert len(commands) >= SECONDS * 15 * 0.8
    assert len(episode["target_grip"]) == len(commands)
    assert len(episode["image.wrist"]) > SECONDS * 10


def test_0_4_1_runs_and_records(public: Public, server: Server, tmp_path: Path) -> None:
    out = tmp_path / "out"
    simulate(
        server,
        public("positronic-0.4.1") / "positronic-inference",
        out,
        *("--charge_inference_time=False", f"--eval.timeout={SECONDS}"),
        *("--policy.address.host=127.0.0.1", f"--policy.address.port={server.port}"),
    )
    (episode,) = LocalDataset(out)
    assert episode["inference.policy.server.checkpoint_id"] == "020000"
    assert episode["inference.policy.server.action_fps"] == 15.0
    assert episode["task"].startswith("Pick up the green cube")
    assert len(episode["robot_command.pose"]) >= SECONDS * 15 * 0.8
    assert episode["grip"].start_ts == episode["image.wrist"].start_ts
    # What it recorded is what can be trained on.
    flags = ["--dataset.dataset=@positronic.cfg.ds.local", f"--dataset.dataset.path={out}"]
    flags += ["--dataset.codec=@positronic.vendors.lerobot.codecs.eepose_absolute", "--fps=15"]
    assert (
        cli.status(COMMANDS, "prog", ["convert", *flags, f"--output_dir={tmp_path / 'lerobot'}"])
        == 0
    )
    info = json.loads((tmp_path / "lerobot/meta/info.json").read_text())
    assert info["total_frames"] >= SECONDS * 15 * 0.8


def test_what_0_4_1_records_is_what_it_exchanges_with_a_server(
    public: Public, tmp_path: Path
) -> None:
    """Its recordings are of other points and grips than its messages; trained on must be these."""
    seen: list[dict[str, Any]] = []
    goal = np.array([0.5, 0.1, 0.5, 0.0, 1.0, 0.0, 0.0])
    command = {"type": "cartesian_pos", "pose": pose_to_wire(goal)}
    action = {"robot_command": command, "target_grip": 0.25}

    def script(connection: ServerConnection) -> None:
        say_ready(connection, action_fps=15.0, local_stack=local_stack({}, OPEN_1))
        while True:
            seen.append(hear(connection))
            say(connection, {"result": [{**action, "timestamp": i / 15} for i in range(6)]})

    with speaking(script) as port:
        run(
            public("positronic-0.4.1") / "positronic-inference",
            tmp_path / "out",
            *("--charge_inference_time=False", f"--eval.timeout={SECONDS}"),
            *("--policy.address.host=127.0.0.1", f"--policy.address.port={port}"),
        )
    names = ["robot_state.ee_pose", "robot_commands.pose", "grip", "target_grip"]
    (recording,) = LocalDataset(tmp_path / "out")
    episode = adapted(recording, names, OPEN_1)
    assert seen[0]["grip"] == episode["grip"][0][0] == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(
        seen[0]["robot_state.ee_pose"], episode["robot_state.ee_pose"][0][0], atol=1e-12
    )
    np.testing.assert_allclose(episode["robot_commands.pose"][0][0], goal, atol=1e-7)
    assert set(episode["target_grip"].values()) == {0.25}
    if FIXTURE.is_dir():
        # The arm begins as it did in 0.2.1, and so does its pose.
        older = LocalDataset(FIXTURE)[0]
        np.testing.assert_allclose(seen[0]["robot_state.q"], older["robot_state.q"][0][0], 1e-6)
        found, wanted = (e["robot_state.ee_pose"][0][0] for e in (episode, older))
        np.testing.assert_allclose(found, wanted, atol=1e-6)
