"""Small LeRobot datasets, made with LeRobot's own writer."""

from pathlib import Path

import av
import numpy as np
from lerobot.configs import RGBEncoderConfig
from lerobot.datasets import LeRobotDataset

FPS = 15


def write(
    root: Path,
    lengths: list[int],
    *,
    cameras: tuple[str, ...] = (),
    size: int = 32,
    reward: bool = False,
    environment_state: bool = True,
) -> Path:
    """Write episodes of random numbers; tasks alternate, so that episodes differ in every key."""
    features: dict[str, dict[str, object]] = {
        "observation.state": {"dtype": "float32", "shape": (8,), "names": None},
        "observation.environment_state": {"dtype": "float32", "shape": (10,), "names": None},
        "action": {"dtype": "float32", "shape": (8,), "names": None},
        "next.success": {"dtype": "bool", "shape": (1,), "names": None},
    }
    if not environment_state:
        del features["observation.environment_state"]
    if reward:
        features["next.reward"] = {"dtype": "float32", "shape": (1,), "names": None}
    for camera in cameras:
        features[f"observation.images.{camera}"] = {
            "dtype": "video",
            "shape": (size, size, 3),
            "names": ["height", "width", "channels"],
        }
    dataset = LeRobotDataset.create(
        "local/small",
        FPS,
        features,
        root=root,
        use_videos=bool(cameras),
        rgb_encoder=RGBEncoderConfig(vcodec="h264"),
    )
    rng = np.random.default_rng(7)
    for episode, length in enumerate(lengths):
        for step in range(length):
            frame: dict[str, object] = {
                "observation.state": rng.normal(2, 3, 8).astype(np.float32),
                "observation.environment_state": rng.normal(-5, 2, 10).astype(np.float32),
                "action": rng.normal(0, 1, 8).astype(np.float32),
                "next.success": np.array([step == length - 1]),
                "task": f"task {episode % 2}",
            }
            if not environment_state:
                del frame["observation.environment_state"]
            if reward:
                frame["next.reward"] = rng.normal(0, 1, 1).astype(np.float32)
            for camera in cameras:
                frame[f"observation.images.{camera}"] = rng.integers(
                    0, 256, (size, size, 3), dtype=np.uint8
                )
            dataset.add_frame(frame)
        dataset.save_episode()
    dataset.finalize()
    # LeRobot leaves FFmpeg reporting on every file that any later test finishes.
    av.logging.set_libav_level(av.logging.WARNING)
    return root
