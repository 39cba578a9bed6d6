"""The simulator of public Positronic 0.2.1, unmodified, with its own Franka, on this server."""

import os
import subprocess
from pathlib import Path

import pytest

from positronic.dataset import LocalDataset
from tests.interop.conftest import Public, Server
from tests.positronic.offboard.serving import get

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("interop")]

SECONDS = 0.6


def test_it_runs_two_iterations_and_records(public: Public, server: Server, tmp_path: Path) -> None:
    before = get(server.port, "/api/v1/status")[1]
    done = subprocess.run(
        [
            *(public("positronic-0.2.1") / "positronic-inference", "sim"),
            *("--driver.num_iterations=2", f"--driver.simulation_time={SECONDS}"),
            *(f"--output_dir={tmp_path / 'out'}", "--policy=.remote"),
            *("--policy.host=127.0.0.1", f"--policy.port={server.port}"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
        cwd=tmp_path,
        env={**os.environ, "MUJOCO_GL": "egl"},
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    # A chunk of 6 actions at 15 per second lasts 0.4 s: the second one has begun.
    status = get(server.port, "/api/v1/status")[1]
    assert status["server"]["inferences"] - before["server"]["inferences"] >= 2 * 2
    assert status["failures"] == before["failures"]

    # Its last iteration is never saved, whatever their number.
    dataset = LocalDataset(tmp_path / "out")
    assert len(dataset) == 1
    episode = dataset[0]
    assert episode["inference.policy.server.checkpoint_id"] == "020000"
    assert episode["inference.policy.server.type"] == "act"
    assert episode["task"].startswith("Pick up the green cube")
    commands = episode["robot_commands.pose"]
    assert len(commands) >= SECONDS * 15 * 0.8
    assert len(episode["target_grip"]) == len(commands)
    assert len(episode["image.wrist"]) > SECONDS * 10
