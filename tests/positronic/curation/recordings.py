"""Synthetic recordings of a reaching arm, good or spoiled in a known way."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from positronic.dataset import DatasetWriter
from positronic.geom import quat_mul

RATE, CAMERA_RATE = 40, 10
Array = NDArray[np.float64]


def record(root: Path, seed: int, way: str = "", **statics: object) -> str:
    """Record a motion to a random goal, a grip and a camera, and spoil it; return its uid."""
    rng = np.random.default_rng(seed)
    seconds = rng.uniform(3.6, 4.4)
    times = np.arange(0, seconds, 1 / RATE)
    share = times / seconds
    goal = np.array([0.5, 0.0, 0.1]) + rng.normal(0, 0.02, 3)
    smooth = share**3 * (10 - 15 * share + 6 * share**2)
    command = np.array([0.3, 0.2, 0.4]) + smooth[:, None] * (goal - np.array([0.3, 0.2, 0.4]))
    command += rng.normal(0, 2e-4, command.shape)
    if way == "wander":
        command += 0.06 * np.sin(np.pi * share)[:, None] * np.sin(20 * share[:, None] + [0, 1, 2])
    if way == "goal":
        command += np.clip(share - 0.5, 0, 1)[:, None] * np.array([0.5, 0.5, 0.0])
    lag = round(0.1 * RATE)
    measured = np.concatenate([np.repeat(command[:1], lag, axis=0), command[:-lag]])
    quats = np.tile([0.0, 1.0, 0.0, 0.0], (len(times), 1))
    grip = (share > 0.6).astype(float)
    target = np.concatenate([grip[lag:], np.ones(lag)])
    told, turned = command, quats
    if way == "shift":
        told = np.concatenate([np.repeat(command[:1], 16, axis=0), command[:-16]])
    if way == "offset":
        half = np.radians(17) / 2
        turned = quat_mul(np.array([np.cos(half), 0, 0, np.sin(half)]), quats)
    if way == "grip":
        target = 1 - target
    with DatasetWriter(root).new_episode() as episode:
        for i, t in enumerate(times):
            now = round(t * 1e9)
            episode.append("robot_state.ee_pose", np.concatenate([measured[i], quats[i]]), now)
            episode.append("robot_commands.pose", np.concatenate([told[i], turned[i]]), now)
            episode.append("grip", grip[i], now)
            episode.append("target_grip", target[i], now)
        for i, picture in enumerate(_pictures(rng, measured[:: RATE // CAMERA_RATE], way)):
            episode.append("image.front", picture, i * 10**9 // CAMERA_RATE)
        for name, value in statics.items():
            episode.set_static(name.replace("__", "."), value)
        return str(episode._meta["uid"])


def _pictures(rng: np.random.Generator, positions: Array, way: str) -> list[NDArray[np.uint8]]:
    found: list[NDArray[np.uint8]] = []
    board = np.indices((48, 64)).sum(axis=0) // 6 % 2 * 60 + 60
    for i, position in enumerate(positions):
        picture = np.repeat(board[:, :, None], 3, axis=2).astype(np.uint8)
        row, column = int(position[2] * 80), int(position[0] * 80)
        picture[row : row + 12, column : column + 12] = 250
        if way == "frozen" and i > len(positions) // 3:
            picture = found[-1]
        if way == "black" and i % 3 == 0:
            picture = np.zeros_like(picture)
        if way == "moved":
            picture = np.roll(picture, 6, axis=0)
        found.append(picture)
    return found


def dataset(root: Path, ways: dict[int, str], count: int = 16) -> list[str]:
    """Record ``count`` episodes, some of them spoiled; their uids."""
    recorded: Callable[[int], str] = lambda i: record(root, i, ways.get(i, ""))  # noqa: E731
    return [recorded(i) for i in range(count)]
