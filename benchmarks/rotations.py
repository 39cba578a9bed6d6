"""Benchmark: effect of quaternion sign alignment on the errors of a small policy.

Rollouts of a policy that tilts the gripper are recorded in the simulator, by the recorder of
``positronic-inference``, and converted twice: with the signs of quaternions as they were recorded,
and by the rule of the codec (`positronic.codec.vectors`). The same network is trained on both,
from the same weights on the same batches, and asked for the rows of held-out episodes.

Usage: ``python benchmarks/rotations.py``, or with ``--quick`` in a few seconds, for a test.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FPS = 15
STATE, OBJECTS = "observation.state", "observation.environment_state"
POSE = slice(3, 7)  # the quaternion, in the state and in the action alike
TILT_RAD = 0.6

Array = NDArray[Any]


@dataclass(frozen=True)
class Size:
    """How much is recorded and trained."""

    episodes: int = 50
    held_out: int = 10
    seconds: float = 3.0
    steps: int = 3000
    seeds: int = 3


@dataclass(frozen=True)
class Outcome:
    """What came of one training, on the rows of held-out episodes.

    Attributes:
        errors: angles between predicted and recorded commands in degrees.
        opposite: the share of commands whose sign is opposite to that of the observed pose.
        apart: metres between the answers to the two quaternions of an observed pose, at worst.
    """

    errors: Array
    opposite: float
    apart: float


class Tilting:
    """A policy that goes to above the first cube, leaning the further the more it lies aside."""

    def __init__(self) -> None:
        """Say what every policy says of itself."""
        self.meta: dict[str, Any] = {"type": "tilting", "action_fps": FPS}

    def new_session(self, context: Mapping[str, Any] | None = None) -> "Tilting":
        """Return itself: it remembers nothing."""
        return self

    def infer(self, obs: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Answer with one command."""
        from positronic.geom import pose_to_wire, quat_mul

        pose, cube = np.asarray(obs["robot_state.ee_pose"]), np.asarray(obs["object_poses"][:3])
        # The cubes lie some 15 cm around (0.5, 0); both leanings turn with where this one is.
        aside = np.clip((cube[:2] - [0.5, 0.0]) / 0.15, -1, 1) * TILT_RAD / 2
        lean = quat_mul(_about(0, aside[1]), _about(1, aside[0]))
        target = np.append(cube[:2], 0.25)
        moved = pose[:3] + np.clip(target - pose[:3], -0.02, 0.02)
        command = np.concatenate([moved, quat_mul(lean, [0.0, 1.0, 0.0, 0.0])])
        sent = {"type": "cartesian_pos", "pose": pose_to_wire(command)}
        return [{"robot_command": sent, "target_grip": 1.0, "timestamp": 0.0}]

    def close(self) -> None:
        """Nothing to give back."""


def record(root: Path, size: Size) -> None:
    """Write rollouts down as raw episodes."""
    from positronic.dataset import DatasetWriter
    from positronic.inference.rollout import Harness
    from positronic.inference.setting import Setting

    setting = Setting("stack_cubes", size.seconds)
    env = setting.open_env()
    harness = Harness(env, Tilting(), setting, writer=DatasetWriter(root))
    for rollout in setting.plan(seed=0, count=size.episodes):
        harness.play(rollout)
    env.close()


def measure(root: Path, reference: Any, size: Size, seed: int) -> Outcome:
    """Convert with one reference, train, and try the held-out episodes."""
    import torch

    from positronic.dataset import LocalDataset
    from positronic.geom import normalize_quat, quat_dot
    from positronic.vendors.lerobot.codecs import eepose_state
    from positronic.vendors.lerobot.conversion.encode_episode import Recipe, encode_episode

    codec = eepose_state(quat_reference=reference)
    recipe = Recipe(codec, FPS, None)
    episodes = [encode_episode(each, recipe, root).columns for each in LocalDataset(root)]
    inputs = [np.concatenate([each[STATE], each[OBJECTS]], axis=1) for each in episodes]
    actions = [each["action"] for each in episodes]
    trained = size.episodes - size.held_out
    predict = train(np.concatenate(inputs[:trained]), np.concatenate(actions[:trained]), size, seed)

    seen, wanted = np.concatenate(inputs[trained:]), np.concatenate(actions[trained:])
    with torch.inference_mode():
        predicted = predict(seen)
    cosines = np.abs(quat_dot(normalize_quat(predicted[:, POSE]), normalize_quat(wanted[:, POSE])))
    signs = quat_dot(seen[:, POSE], wanted[:, POSE])
    other = seen.copy()
    for row, state in zip(other, other[:, :8].astype(np.float64), strict=True):
        # A client that sends the other quaternion of the same rotation.
        state[POSE] *= -1
        sent = {"robot_state.ee_pose": state[:7], "grip": state[7], "object_poses": _ANY}
        row[:8] = codec.encode(sent)[STATE]
    moved = predict(other)[:, :3] - predicted[:, :3]
    return Outcome(
        errors=np.degrees(2 * np.arccos(np.minimum(cosines, 1.0))),
        opposite=float((signs < 0).mean()),
        apart=float(np.linalg.norm(moved, axis=1).max()),
    )


def train(inputs: Array, targets: Array, size: Size, seed: int) -> Any:
    """Train a small network on normalised rows; return a function from inputs to actions."""
    import torch

    torch.set_num_threads(1)  # it is too small to be shared
    torch.manual_seed(seed)
    (x, x_mean, x_std), (y, y_mean, y_std) = _normalised(inputs), _normalised(targets)
    network = torch.nn.Sequential(
        torch.nn.Linear(x.shape[1], 128),
        torch.nn.ReLU(),
        torch.nn.Linear(128, 128),
        torch.nn.ReLU(),
        torch.nn.Linear(128, y.shape[1]),
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, size.steps)
    for _ in range(size.steps):
        rows = torch.randint(len(x), (64,))
        optimizer.zero_grad()
        loss: Any = torch.nn.functional.l1_loss(network(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
        schedule.step()

    @torch.inference_mode()
    def predict(rows: Array) -> Array:
        found: Array = network((torch.from_numpy(rows) - x_mean) / x_std) * y_std + y_mean
        return np.asarray(found, dtype=np.float64)

    return predict


def compare(size: Size, root: Path) -> dict[str, list[Outcome]]:
    """Record once, and measure without and with the rule; an outcome for each seed."""
    from positronic.codec.vectors import QUAT_REFERENCE

    record(root, size)
    rules = {"signs as recorded": None, "one rule in the codec": QUAT_REFERENCE}
    return {
        name: [measure(root, reference, size, seed) for seed in range(size.seeds)]
        for name, reference in rules.items()
    }


def table(outcomes: dict[str, list[Outcome]]) -> str:
    """The table of the README."""
    lines = [
        "| quaternions | commands opposite to the observed pose | mean error, ° | worst error, ° |"
        " answers to q and −q apart, mm |",
        "|---|---|---|---|---|",
    ]
    for name, runs in outcomes.items():
        means = [run.errors.mean() for run in runs]
        worst = [run.errors.max() for run in runs]
        apart = [1000 * run.apart for run in runs]
        shares = f"{runs[0].opposite:.0%}"
        lines.append(
            f"| {name} | {shares} | {_all(means, 2)} | {_all(worst, 1)} | {_all(apart, 1)} |"
        )
    return "\n".join(lines)


def _normalised(rows: Array) -> tuple[Any, Any, Any]:
    import torch

    tensor = torch.from_numpy(rows)
    std, mean = torch.std_mean(tensor, dim=0)
    std = std.clamp(min=1e-3)  # a number that never changed
    return (tensor - mean) / std, mean, std


def _about(axis: int, angle: float) -> Array:
    quat = np.zeros(4)
    quat[0], quat[1 + axis] = np.cos(angle / 2), np.sin(angle / 2)
    return quat


def _all(values: list[Any], digits: int) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)


_ANY = np.tile([0.5, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0], 2)
QUICK = Size(episodes=12, held_out=3, seconds=1.5, steps=500, seeds=1)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="What one rule for quaternion signs is worth.")
    parser.add_argument("--quick", action="store_true", help="less of everything")
    size = QUICK if parser.parse_args().quick else Size()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as root:
        print(table(compare(size, Path(root))))
    load = os.getloadavg()[0]
    print(f"\n{size}; {time.perf_counter() - started:.0f} s, load {load:.1f}")


if __name__ == "__main__":
    main()
