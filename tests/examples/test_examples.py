"""Examples, each run as a reader would run it, on data made here."""

import importlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from getiaction.data import LeRobotDataModule
from getiaction.eval import evaluate_policy
from getiaction.policies.lerobot import ACT
from positronic.cli import status
from positronic.codec import Contract, Limits, from_spec
from positronic.dataset import load_all_datasets
from positronic.errors import CodecError, SessionError
from positronic.offboard.client import RemotePolicy
from positronic.vendors.lerobot.convert import COMMANDS
from tests.getiaction.datasets import write
from tests.positronic.inference.commands import remote
from tests.positronic.inference.commands import run as run_inference
from tests.positronic.vendors.lerobot.raw import FPS, record
from tests.waiting import line_of

EXAMPLES = Path(__file__).parents[2] / "examples"
ABOVE = [0.0, 0.0, 0.15]


def test_every_example_is_in_the_table() -> None:
    table = (EXAMPLES / "README.md").read_text()
    assert [path.name for path in EXAMPLES.glob("*.py") if f"`{path.name}`" not in table] == []


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with ``PYTHONPATH=examples``."""
    monkeypatch.syspath_prepend(str(EXAMPLES))


def script(name: str, *words: str) -> list[str]:
    return [sys.executable, str(EXAMPLES / name), *words]


def output_of(name: str, *words: str) -> str:
    done = subprocess.run(
        script(name, *words), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def port() -> Iterator[str]:
    """The controller of ``serve_another_policy.py``, in a process of its own."""
    command = script("serve_another_policy.py", "--port=0")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield line_of(server.stdout, "the controller to be served").strip().rpartition(":")[2]
            server.send_signal(signal.SIGTERM)
            assert server.wait(60) == 0
        finally:
            server.kill()


def test_ten_lines_train_a_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write(tmp_path / "dataset", [9, 14])
    words = ["train", str(root), f"--output={tmp_path / 'run'}", "--steps=3"]
    monkeypatch.setattr(sys, "argv", words)
    importlib.import_module("train_in_ten_lines").main()
    printed = capsys.readouterr().out
    assert re.search(r"^loss [\d.]+ after 3 steps$", printed, re.MULTILINE)
    trained = tmp_path / "run/pretrained_model"
    assert f"saved {trained}" in printed

    policy = ACT.from_pretrained(trained)
    assert (policy.config.chunk_size, policy.config.dim_model) == (20, 128)
    frame = LeRobotDataModule(root=root).meta.stats["observation.state"]["mean"]
    seen = {
        "observation.state": torch.as_tensor(frame, dtype=torch.float32)[None],
        "observation.environment_state": torch.full((1, 10), -5.0),
    }
    chunk = policy.predict_action_chunk(seen)
    assert chunk.shape == (1, 20, 8)
    assert torch.isfinite(chunk).all()
    # The checkpoint of the run, from which training can go on, is of the same weights.
    (checkpoint,) = (tmp_path / "run").rglob("*.ckpt")
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 3
    again = ACT.load_from_checkpoint(checkpoint).predict_action_chunk(seen)
    torch.testing.assert_close(again, chunk)


def test_the_codec_encodes_and_decodes() -> None:
    printed = dict(line.split(" ", 1) for line in output_of("own_codec.py").splitlines())
    offset = json.loads(printed["observation.environment_state"])
    np.testing.assert_allclose(offset, [0.1, 0.1, -0.28], atol=1e-6)
    assert json.loads(printed["observation.state"]) == [0.0] * 7 + [1.0]
    assert printed["observation.images.wrist"] == "(64, 64, 3)"
    down = [1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, -1.0]
    assert json.loads(printed["robot_command"]) == [0.5, 0.1, 0.12, *down]
    assert printed["target_grip"] == "0.5"


def test_recordings_are_converted_with_the_codec(tmp_path: Path) -> None:
    for index in range(2):
        record(tmp_path / "raw", index, steps=6)
    root = tmp_path / "dataset"
    command = [
        "convert",
        f"--dataset.dataset={tmp_path / 'raw'}",
        "--dataset.codec=@own_codec.joints_camera_offset",
        "--dataset.codec.image_size=48",
        f"--output_dir={root}",
        f"--fps={FPS}",
        "--workers=1",  # in a process that has to import the codec itself
    ]
    assert status(COMMANDS, "positronic-to-lerobot", command) == 0

    features = json.loads((root / "meta/info.json").read_text())["features"]
    assert features["observation.images.wrist"]["shape"] == [48, 48, 3]
    assert features["observation.environment_state"]["names"] == ["x", "y", "z"]
    table = pq.read_table(root / "data/chunk-000/file-000.parquet")
    offsets = np.array(table["observation.environment_state"].to_pylist())
    wanted = []
    for episode in load_all_datasets(tmp_path / "raw"):
        poses, objects = (
            episode[name].values() for name in ("robot_state.ee_pose", "object_poses")
        )
        wanted.append((objects[:, :3] - poses[:, :3])[: len(offsets) // 2])
    np.testing.assert_allclose(offsets, np.concatenate(wanted), atol=1e-5)

    codec = importlib.import_module("own_codec").joints_camera_offset(image_size=48)
    contract = Contract.load(root / "meta")
    assert from_spec(contract.codec["spec"]) == codec
    offset = {"observation.environment_state": np.array([0.1, 0.1, -900.0], np.float32)}
    statistics = json.loads((root / "meta/stats.json").read_text())
    with pytest.raises(CodecError, match="signal 'object_poses' is -900 "):
        Limits.of(codec.parts[1], statistics).check(offset)
    assert contract.inputs == list(codec.inputs)


def test_the_codec_encodes_rows_as_it_encodes_one() -> None:
    codec = importlib.import_module("own_codec").ObjectOffset()
    rng = np.random.default_rng(0)
    columns = {
        "robot_state.ee_pose": rng.normal(size=(5, 7)),
        "object_poses": rng.normal(size=(5, 14)),
    }
    (rows,) = codec.encode_rows(columns).values()
    for i, row in enumerate(rows):
        (one,) = codec.encode({name: column[i] for name, column in columns.items()}).values()
        assert row.tobytes() == one.tobytes()


class Still:
    def reset(self) -> None:
        pass

    def select_action(self, observation: dict[str, Any]) -> torch.Tensor:
        return torch.zeros(1, 2)


def test_policies_are_rolled_out_in_the_environment(capsys: pytest.CaptureFixture[str]) -> None:
    own = importlib.import_module("own_environment")
    own.main()
    assert capsys.readouterr().out == "100 % of 20 episodes succeeded\n"
    results = evaluate_policy(
        "own_environment:Reach-v0", Still(), n_episodes=3, start_seed=0, progress=False
    )
    assert results["aggregated"]["pc_success"] == 0
    assert [each["episode_length"] for each in results["per_episode"]] == [40] * 3
    # What Gymnasium asks of an environment: spaces that fit, and seeds that decide everything.
    check_env(gymnasium.make("Reach-v0").unwrapped, skip_render_check=True)


def test_the_robots_loop_is_controlled_by_the_served_policy(port: str) -> None:
    words = (f"--url=ws://127.0.0.1:{port}", "--seconds=3")
    chunks, place = output_of("robot_client_loop.py", *words).splitlines()
    assert int(chunks.split()[0]) >= 3
    found = re.fullmatch(r"the gripper is at (\[.*\]), grip 1.0", place)
    assert found
    np.testing.assert_allclose(json.loads(found[1]), np.add([0.5, 0.1, 0.02], ABOVE), atol=0.01)


def test_the_served_policy_controls_the_simulator(port: str, tmp_path: Path) -> None:
    rolled = run_inference(
        *remote(port),
        "--cameras=none",
        "--driver.num_iterations=1",
        "--driver.simulation_time=3",
        f"--output_dir={tmp_path}",
    )
    assert rolled == 0
    (episode,) = load_all_datasets(tmp_path)
    assert episode.static["inference.policy.server.type"] == "controller"
    gripper, objects = (episode[name].values() for name in ("robot_state.ee_pose", "object_poses"))
    np.testing.assert_allclose(gripper[-1][:3], objects[-1][:3] + ABOVE, atol=0.003)


def test_the_served_policy_says_what_it_needs(port: str) -> None:
    policy = RemotePolicy("127.0.0.1", int(port))
    assert policy.client.models() == ["hover"]
    down = np.array([0.4, 0.0, 0.3, 0.0, 1.0, 0.0, 0.0])
    with policy.new_session() as session:
        with pytest.raises(SessionError, match="the controller needs object_poses"):
            session.infer({"robot_state.ee_pose": down})
        chunk = session.infer({"robot_state.ee_pose": down, "object_poses": down})
    assert [action["timestamp"] for action in chunk] == [i / 15 for i in range(5)]
    heights = [action["robot_command"]["pose"][2] for action in chunk]
    assert heights == sorted(heights)
    assert 0.3 < heights[0] < heights[-1] < 0.45
