"""Raw episodes for the conversion's tests: numbers and pictures that can be told apart."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from positronic.dataset import DatasetWriter

FPS = 15
TASK = "put the cube there"
GRIP = {"open": 1.0, "closed": 0.0}


def picture(episode: int, step: int, camera: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A smooth picture whose brightness tells episode, step and camera apart."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    red = 40 + 10 * step + 0 * rows
    green = 30 + 60 * episode + 40 * camera + rows / 4
    blue = 120 + 50 * np.sin(columns / 9 + step)
    return np.clip(np.stack([red, green, blue], axis=-1), 0, 255).astype(np.uint8)


def pose(rng: np.random.Generator) -> NDArray[np.float64]:
    quat = rng.normal(size=4)
    return np.concatenate([rng.normal(size=3), quat / np.linalg.norm(quat)])


def record(
    root: Path,
    index: int,
    *,
    steps: int = 12,
    size: tuple[int, int] | None = (48, 64),
    start: int = 0,
    without: tuple[str, ...] = (),
    statics: dict[str, Any] | None = None,
    far: float | None = None,
) -> Path:
    """Record one episode at control rate, the last observation without a command.

    ``far`` is the first coordinate of all poses of the arm, in place of a random one.
    """
    rng = np.random.default_rng(index)
    with DatasetWriter(root).new_episode() as episode:
        for name, value in ({"task": TASK, "grip_convention": GRIP} | (statics or {})).items():
            episode.set_static(name, value)
        for step in range(steps + 1):
            time = (start + step) * 10**9 // FPS
            row: dict[str, Any] = {
                "robot_state.q": rng.normal(size=7).astype(np.float32),
                "robot_state.ee_pose": pose(rng),
                "grip": float(rng.uniform()),
                "object_poses": np.concatenate([pose(rng), pose(rng)]),
            }
            if size:
                row["image.wrist"] = picture(index, step, 0, size)
                row["image.exterior"] = picture(index, step, 1, size)
            if far is not None:
                row["robot_state.ee_pose"][0] = far
            if step < steps:
                row |= {"robot_commands.pose": pose(rng), "target_grip": float(step % 2)}
            for name in row.keys() - set(without):
                episode.append(name, row[name], time)
    return episode.path
