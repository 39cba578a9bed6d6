"""Small stand-ins for datasets of the hub, recorded here from the environments they come from.

They have the hub's names, features and rates, so that ``repo_id: lerobot/pusht`` opens offline.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import gymnasium
import numpy as np
import pytest
import torch
from lerobot.configs import RGBEncoderConfig
from lerobot.datasets import LeRobotDataset, dataset_metadata
from torchvision.models import ResNet18_Weights, resnet18

from getiaction.gyms import AlohaGym, Gym, PushTGym

PIXELS = ["height", "width", "channel"]
JOINTS = [
    f"{side}_{joint}"
    for side in ("left", "right")
    for joint in (
        "waist",
        "shoulder",
        "elbow",
        "forearm_roll",
        "wrist_angle",
        "wrist_rotate",
        "gripper",
    )
]


@dataclass(frozen=True)
class Recording:
    """One dataset of the hub, and the environment that it was recorded in."""

    repo_id: str
    gym: Gym
    task: str
    camera: str
    motors: list[str]
    outcomes: tuple[str, ...]
    """What is kept of a step's result: ``next.reward``, ``next.done``, ``next.success``."""
    lengths: tuple[int, ...]

    @property
    def features(self) -> dict[str, Any]:
        """The hub's features; LeRobot adds index, timestamp and the like by itself."""
        height, width = (96, 96) if self.camera == "observation.image" else (480, 640)
        vector = {
            "dtype": "float32",
            "shape": (len(self.motors),),
            "names": {"motors": self.motors},
        }
        outcomes = {
            "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
            "next.done": {"dtype": "bool", "shape": (1,), "names": None},
            "next.success": {"dtype": "bool", "shape": (1,), "names": None},
        }
        return {
            self.camera: {"dtype": "video", "shape": (height, width, 3), "names": PIXELS},
            "observation.state": vector,
            "action": vector,
            **{name: outcomes[name] for name in self.outcomes},
        }


PUSHT = Recording(
    "lerobot/pusht",
    PushTGym(),
    "Push the T-shaped block onto the T-shaped target.",
    "observation.image",
    ["motor_0", "motor_1"],
    ("next.reward", "next.done", "next.success"),
    (30, 26, 28),
)
TRANSFER = Recording(
    "lerobot/aloha_sim_transfer_cube_human",
    AlohaGym("AlohaTransferCube-v0"),
    "Pick up the cube with the right arm and transfer it to the left arm.",
    "observation.images.top",
    JOINTS,
    ("next.done",),
    (4, 3),
)
INSERTION = Recording(
    "lerobot/aloha_sim_insertion_human",
    AlohaGym("AlohaInsertion-v0"),
    "Insert the peg into the socket.",
    "observation.images.top",
    JOINTS,
    ("next.done",),
    (4, 3),
)
# The approaches document calls whatever dataset one has this.
ANY = Recording(
    "lerobot/dataset", PUSHT.gym, PUSHT.task, PUSHT.camera, PUSHT.motors, PUSHT.outcomes, (20, 18)
)


def record(recording: Recording, root: Path) -> None:
    """Record smooth random motion in the real environment."""
    dataset = LeRobotDataset.create(
        recording.repo_id,
        int(recording.gym.fps),
        recording.features,
        root=root,
        use_videos=True,
        rgb_encoder=RGBEncoderConfig(vcodec="h264"),
    )
    env = recording.gym.make()
    rng = np.random.default_rng(7)
    for episode, length in enumerate(recording.lengths):
        raw, _ = env.reset(seed=episode)
        target = _random_action(env, rng)
        for step in range(length):
            # From where the arms are towards a random place, as a hand would move.
            start = np.asarray(raw["agent_pos"], dtype=np.float32)
            action = start + (target - start) * (step + 1) / length
            frame = {
                recording.camera: _picture(raw),
                "observation.state": start,
                "action": action.astype(np.float32),
                "task": recording.task,
            }
            raw, reward, terminated, _, info = env.step(action)
            outcome = {
                "next.reward": np.array([reward], dtype=np.float32),
                "next.done": np.array([terminated or step == length - 1]),
                "next.success": np.array([bool(info["is_success"])]),
            }
            dataset.add_frame(frame | {name: outcome[name] for name in recording.outcomes})
        dataset.save_episode()
    env.close()
    dataset.finalize()
    # LeRobot leaves FFmpeg reporting on every file that any later test finishes.
    av.logging.set_libav_level(av.logging.WARNING)


def _random_action(env: gymnasium.Env[Any, Any], rng: np.random.Generator) -> Any:
    space = env.action_space
    assert isinstance(space, gymnasium.spaces.Box)
    return rng.uniform(space.low, space.high)


def _picture(raw: Mapping[str, Any]) -> Any:
    pixels = raw["pixels"]
    return pixels if isinstance(pixels, np.ndarray) else pixels["top"]


def _once(folder: Path, name: str, make: Any) -> Path:
    """Make ``folder/name`` once, however many test processes want it at the same time."""
    target = folder / name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        own = folder / f"{name}.{os.getpid()}"
        make(own)
        try:
            own.rename(target)
        except OSError:
            # Another process was faster.
            shutil.rmtree(own)
    return target


def _shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "hub"


def put_recording(home: Path, recording: Recording) -> Path:
    """Put ``recording`` where LeRobot looks for it under the ``HF_LEROBOT_HOME`` ``home``."""
    return _once(home, recording.repo_id, lambda root: record(recording, root))


def put_backbone_weights(home: Path) -> None:
    """Put weights where torchvision's download would put them; here there is no network."""
    name = ResNet18_Weights.IMAGENET1K_V1.url.rpartition("/")[2]

    def write(folder: Path) -> None:
        folder.mkdir(parents=True)
        state = torch.random.get_rng_state()
        torch.save(resnet18().state_dict(), folder / name)
        torch.random.set_rng_state(state)

    _once(home, "hub/checkpoints", write)


@dataclass(frozen=True)
class Hub:
    """Where the stand-ins lie: ``HF_LEROBOT_HOME`` and ``TORCH_HOME``."""

    lerobot_home: Path
    torch_home: Path

    def environment(self) -> dict[str, str]:
        """The variables that send another process here."""
        return {
            "HF_LEROBOT_HOME": str(self.lerobot_home),
            "TORCH_HOME": str(self.torch_home),
            "HF_HUB_OFFLINE": "1",
        }

    def enter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Send this process here; LeRobot has read its variable already."""
        for name, value in self.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(dataset_metadata, "HF_LEROBOT_HOME", self.lerobot_home)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def make_hub(tmp_path_factory: pytest.TempPathFactory, *recordings: Recording) -> Hub:
    """Record what is not there yet."""
    shared = _shared(tmp_path_factory)
    for recording in recordings:
        put_recording(shared / "lerobot", recording)
    put_backbone_weights(shared / "torch")
    return Hub(shared / "lerobot", shared / "torch")
