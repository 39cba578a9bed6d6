"""Synthetic LeRobot dataset for benchmarks: a patterned ground, a moving disc, noise."""

from pathlib import Path
from typing import Any

import av
import numpy as np
from lerobot.configs import RGBEncoderConfig
from lerobot.datasets import LeRobotDataset
from numpy.typing import NDArray

FPS = 15
SIZE = 224
CAMERAS = ("left", "side")
# What LeRobot encodes by default: SVT-AV1, two frames a group, crf 30.
AV1 = RGBEncoderConfig()


def write(root: Path, *, episodes: int = 8, frames: int = 150) -> Path:
    """Write it with LeRobot's writer: two 224x224 cameras, state 8, action 8, 15 fps."""
    features: dict[str, Any] = {
        name: {"dtype": "float32", "shape": (8,), "names": None}
        for name in ("observation.state", "action")
    }
    for camera in CAMERAS:
        features[f"observation.images.{camera}"] = {
            "dtype": "video",
            "shape": (SIZE, SIZE, 3),
            "names": ["height", "width", "channels"],
        }
    dataset = LeRobotDataset.create(
        "local/scene",
        FPS,
        features,
        root=root,
        use_videos=True,
        rgb_encoder=AV1,
        streaming_encoding=True,
        # With its default of 30 it drops frames where encoding takes longer than drawing.
        encoder_queue_maxsize=frames,
    )
    rng = np.random.default_rng(0)
    grounds = rng.integers(0, 256, (len(CAMERAS), SIZE // 8, SIZE // 8, 3), np.uint8)
    for episode in range(episodes):
        for step in range(frames):
            row: dict[str, Any] = {
                "task": "move",
                "observation.state": rng.normal(0, 1, 8).astype(np.float32),
                "action": rng.normal(0, 1, 8).astype(np.float32),
            }
            for camera, ground in zip(CAMERAS, grounds, strict=True):
                row[f"observation.images.{camera}"] = _drawn(ground, episode, step, rng)
            dataset.add_frame(row)
        dataset.save_episode()
    dataset.finalize()
    av.logging.set_libav_level(av.logging.WARNING)  # it reports every file that it finishes
    return root


def _drawn(
    ground: NDArray[np.uint8], episode: int, step: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    image = np.kron(np.roll(ground, step // 3, axis=0), np.ones((8, 8, 1), np.uint8))
    rows, columns = np.mgrid[:SIZE, :SIZE]
    middle = SIZE / 2 + 80 * np.array([np.cos(step / 13 + episode), np.sin(step / 10 + episode)])
    disc = (rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 < 400
    image[disc] = (255, 30, episode * 30)
    noisy = image.astype(np.int16) + rng.integers(-6, 7, image.shape, np.int16)
    drawn: NDArray[np.uint8] = noisy.clip(0, 255).astype(np.uint8)
    return drawn
