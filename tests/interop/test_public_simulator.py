"""The simulators of public Positronic, unmodified, with their own Franka, on this server."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from positronic import cli
from positronic.dataset import LocalDataset
from positronic.vendors.lerobot.convert import COMMANDS
from tests.interop.conftest import Public, Server
from tests.positronic.offboard.running import get

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("interop")]

# A chunk of 6 actions at 15 per second lasts 0.4 s: in this time a second one has begun.
SECONDS = 0.6


def simulate(server: Server, command: Path, out: Path, *flags: str) -> None:
    """Run ``positronic-inference sim`` and see that the server had nothing against it."""
    before = get(server.port, "/api/v1/status")[1]
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
