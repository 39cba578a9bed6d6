"""Spoiled demonstrations found by ``positronic-curate suggest``.

Records 62 demonstrations, spoils 12 of them in six known ways, and counts those among the first 12
that are suggested; for several seeds of what is spoiled and how.

    python benchmarks/curation.py --seeds=7,8,9
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from positronic.curation import outliers, score_dataset
from positronic.dataset import DatasetWriter, LocalDataset
from positronic.geom import quat_mul

COUNT, WAYS = 62, ("shift", "offset", "frozen", "grip", "wander", "goal") * 2
COMMAND, POSE, TARGET = "robot_commands.pose", "robot_state.ee_pose", "target_grip"
# The simulator's whole state, which no robot records.
LEFT_OUT = ("sim_state.mjSTATE_INTEGRATION",)

type Array = NDArray[Any]
type Signals = dict[str, tuple[Array, Array]]


def shift(signals: Signals, rng: np.random.Generator) -> None:
    """Commands are 4 to 8 rows late."""
    rows = int(rng.integers(4, 9))
    for name in (COMMAND, TARGET):
        _change(signals, name, lambda v: np.concatenate([np.repeat(v[:1], rows, 0), v[:-rows]]))


def offset(signals: Signals, rng: np.random.Generator) -> None:
    """Commanded poses are turned by 17 degrees about the base."""
    angle = np.radians(17) * rng.choice([-1, 1])
    c, s = np.cos(angle), np.sin(angle)

    def turned(poses: Array) -> Array:
        poses[:, :2] = poses[:, :2] @ np.array([[c, s], [-s, c]])
        quat = np.array([np.cos(angle / 2), 0, 0, np.sin(angle / 2)])
        poses[:, 3:] = quat_mul(quat, poses[:, 3:])
        return poses

    _change(signals, COMMAND, turned)


def frozen(signals: Signals, rng: np.random.Generator) -> None:
    """One camera stops after 20 to 50 % of the episode."""
    name = str(rng.choice(["image.wrist", "image.exterior"]))
    share = rng.uniform(0.2, 0.5)

    def stopped(frames: Array) -> Array:
        last = int(len(frames) * share)
        return np.concatenate(
            [frames[:last], np.repeat(frames[last : last + 1], len(frames) - last, 0)]
        )

    _change(signals, name, stopped)


def grip(signals: Signals, rng: np.random.Generator) -> None:
    """The commanded grip is inverted."""
    _change(signals, TARGET, lambda v: 1 - v)


def wander(signals: Signals, rng: np.random.Generator) -> None:
    """The arm swings by 3 to 7 cm on its way."""
    count = len(signals[POSE][0])
    t = np.linspace(0, 1, count)[:, None]
    swings = [
        rng.uniform(0.03, 0.07) * np.sin(2 * np.pi * f * t) * rng.normal(size=3) / 1.7
        for f in (2, 3, 4)
    ]
    _displace(signals, sum(swings) * np.sin(np.pi * t), (COMMAND, POSE))


def goal(signals: Signals, rng: np.random.Generator) -> None:
    """The cube is put 6 to 12 cm beside the other one."""
    count = len(signals[POSE][0])
    t = np.linspace(0, 1, count)[:, None]
    way = rng.normal(size=2)
    way *= rng.uniform(0.06, 0.12) / np.linalg.norm(way)
    there = np.clip((t - 0.5) / 0.3, 0, 1) * np.array([*way, 0])
    _displace(signals, there, (COMMAND, POSE, "object_poses"))


SPOIL: Mapping[str, Callable[[Signals, np.random.Generator], None]] = {
    each.__name__: each for each in (shift, offset, frozen, grip, wander, goal)
}


def _change(signals: Signals, name: str, change: Callable[[Array], Array]) -> None:
    values, times = signals[name]
    signals[name] = change(values.copy()), times


def _displace(signals: Signals, by: Array, names: tuple[str, ...]) -> None:
    for name in names:
        _change(
            signals, name, lambda v: np.concatenate([v[:, :3] + by[: len(v)], v[:, 3:]], axis=1)
        )


def spoil(clean: Path, root: Path, seed: int) -> dict[str, str]:
    """Copy the recordings, spoil 12 of them; return how, by uid."""
    rng = np.random.default_rng(seed)
    ways = dict(zip(rng.permutation(COUNT)[: len(WAYS)].tolist(), WAYS, strict=True))
    found: dict[str, str] = {}
    writer = DatasetWriter(root)
    for index, episode in enumerate(LocalDataset(clean)):
        signals: Signals = {
            name: (np.asarray(signal.values()), signal.timestamps())
            for name, signal in episode.signals.items()
            if name not in LEFT_OUT
        }
        if index in ways:
            SPOIL[ways[index]](signals, rng)
            found[episode.uid] = ways[index]
        with writer.new_episode(uid=episode.uid) as copy:
            copy.set_static("task", episode["task"])  # not whether it succeeded
            for name, (values, times) in signals.items():
                for value, ts_ns in zip(values, times, strict=True):
                    copy.append(name, value, int(ts_ns))
    return found


def main() -> None:
    """Print a line for each seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="7,8,9")
    seeds = [int(seed) for seed in parser.parse_args().seeds.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        clean = Path(folder) / "clean"
        record = Path(sys.executable).parent / "positronic-data-collection"
        words = ["--env=stack_cubes", f"--episodes={COUNT}", "--image_size=[96,128]"]
        subprocess.run([record, "scripted", *words, f"--output_dir={clean}"], check=True)
        for seed in seeds:
            ways = spoil(clean, Path(folder) / str(seed), seed)
            ranked = outliers(score_dataset(LocalDataset(Path(folder) / str(seed))))
            first = [outlier.scores.uid for outlier in ranked[: len(WAYS)]]
            hit = sum(uid in ways for uid in first)
            missed = sorted(way for uid, way in ways.items() if uid not in first)
            shown = f", missed: {', '.join(missed)}" if missed else ""
            print(f"seed {seed}: {hit} of {len(WAYS)} spoiled ones first, {12 - hit} clean{shown}")


if __name__ == "__main__":
    main()
