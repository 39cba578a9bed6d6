"""Rollouts in environments of other packages, of policies that were trained on their data."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foundation.errors import FoundationError
from positronic.dataset import DatasetWriter, LocalDataset
from positronic.errors import SessionError
from positronic.inference.gym_world import GymWorld
from positronic.inference.rollout import Harness
from positronic.inference.setting import Rollout, Setting, is_gym_id
from positronic.inference.video import VideoDirectory
from positronic.vendors.lerobot.serving.policy import load_policy
from tests.positronic.vendors.lerobot.native_dataset import TINY_ACT, lerobot_chunk
from tests.positronic.vendors.lerobot.training.training_commands import command

PUSHT = "gym_pusht/PushT-v0"
FEATURES: dict[str, dict[str, Any]] = {
    "observation.image": {
        "dtype": "image",
        "shape": (96, 96, 3),
        "names": ["height", "width", "channels"],
    },
    "observation.state": {"dtype": "float32", "shape": (2,), "names": ["x", "y"]},
    "action": {"dtype": "float32", "shape": (2,), "names": ["x", "y"]},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy trained on rows of PushT itself, written by LeRobot."""
    from lerobot.datasets import LeRobotDataset

    place = tmp_path_factory.mktemp("pusht")
    data = LeRobotDataset.create("local/pusht", 10, FEATURES, root=place / "data", use_videos=False)
    world = GymWorld(PUSHT)
    for seed in range(2):
        obs, _ = world.reset(seed=seed)
        for step in range(8):
            action = 256 + 200 * np.sin([step, step + 1]).astype(np.float32)
            data.add_frame({**obs, "action": action, "task": "push"})
            obs, *_ = world.step(action.astype(np.float64))
        data.save_episode()
    data.finalize()
    world.close()
    policy = ["--policy=act", *(f"--policy.{name}={value}" for name, value in TINY_ACT.items())]
    words = [f"--dataset_root={place / 'data'}", "--run_name=run", f"--output_dir={place}"]
    fast = ["--steps=1", "--batch_size=2", "--num_workers=0", "--cache=off", "--device=cpu"]
    assert command(*words, *policy, *fast) == 0
    return place / "run"


@pytest.fixture
def world() -> Iterator[GymWorld]:
    world = GymWorld(PUSHT)
    yield world
    world.close()


def test_observations_are_those_of_lerobots_keys(world: GymWorld) -> None:
    obs, _ = world.reset(seed=3)
    assert {name: (v.dtype.name, v.shape) for name, v in obs.items()} == {
        "observation.image": ("uint8", (96, 96, 3)),
        "observation.state": ("float32", (2,)),
    }
    assert (world.control_fps, world.cameras) == (10, ("observation.image",))
    assert (world.image_size, world.action_space.shape) == ((96, 96), (2,))
    again, _ = world.reset(seed=3)
    np.testing.assert_array_equal(obs["observation.image"], again["observation.image"])
    other, _ = world.reset(seed=4)
    assert not np.array_equal(obs["observation.state"], other["observation.state"])


@pytest.mark.parametrize(
    "action",
    [
        {"robot_command": {"type": "joint_pos"}},
        {"action": np.zeros(3)},
        {"action": np.full(2, np.nan)},
        {"action": "up"},
    ],
)
def test_an_action_of_another_robot_is_refused(world: GymWorld, action: Any) -> None:
    with pytest.raises(SessionError, match=r"'action' vector of shape \(2,\), as gym_pusht"):
        world.command(action)


def test_the_executed_actions_are_lerobots_for_what_was_seen(run: Path, tmp_path: Path) -> None:
    setting = Setting(PUSHT, simulation_time=0.8)
    world, writer = setting.open_env(), DatasetWriter(tmp_path / "raw")
    videos = VideoDirectory(tmp_path / "videos", 1)
    seen: list[Any] = []
    try:
        harness = Harness(world, load_policy(str(run), device="cpu"), setting, writer, videos)
        harness.watch = lambda obs, label: seen.append(dict(obs))
        result, cause = harness.play(Rollout(0, 100_000))
        assert cause is None
    finally:
        world.close()
    assert (result.ended_by, result.steps, result.inference_steps) == ("timeout", 8, (0, 4))
    (episode,) = LocalDataset(tmp_path / "raw")
    actions = np.asarray(episode.signals["action"].values())
    for step in (0, 4):
        native = lerobot_chunk(run / "checkpoints/last/pretrained_model", seen[step])
        np.testing.assert_allclose(actions[step : step + 4], native[:4], atol=1e-5, rtol=1e-6)
    assert "sim_state.mjSTATE_INTEGRATION" not in episode.signals
    assert episode.static["simulation.env_id"] == PUSHT
    assert (tmp_path / "videos/0-timeout.mp4").stat().st_size > 500


def test_names_of_environments() -> None:
    assert [name for name in (PUSHT, "my.module:Env-v0") if not is_gym_id(name)] == []
    assert not any(map(is_gym_id, ("stack_cubes", ".pick_place", "positronic/StackCubes-v0")))
    with pytest.raises(FoundationError, match="needs the package 'no_such_package', which is not"):
        GymWorld("no_such_package/Env-v0")
