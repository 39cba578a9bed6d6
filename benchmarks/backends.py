"""Benchmark: time of an action chunk by each backend, LeRobot's policy in torch and its exports.

All sides take turns, call by call, so that whatever else the machine does meets all alike; ratios
are medians over the turns.
"""

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

# As the server sets them, before torch is imported and looks.
os.environ.setdefault("OMP_NUM_THREADS", str(min(8, len(os.sched_getaffinity(0)))))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from serving_models import KINDS, Kind, observation, save

from positronic.vendors.lerobot.serving.backends.base import Backend
from positronic.vendors.lerobot.serving.backends.equality import Reference
from positronic.vendors.lerobot.serving.backends.torch_backend import TorchBackend
from positronic.vendors.lerobot.serving.checkpoint_directory import CheckpointDirectory
from positronic.vendors.lerobot.serving.choosing import choose_backend

SIDES = {
    "torch": ("torch", "float32"),
    "torch, bf16": ("torch", "bf16"),
    "onnx": ("onnx", "float32"),
    "openvino": ("openvino", "float32"),
    "openvino, bf16": ("openvino", "bf16"),
}
BATCHES = (1, 8)


def measure(kind: Kind, root: Path, rounds: int) -> None:
    """Print one policy's tables."""
    directory = CheckpointDirectory(save(kind, root))
    checkpoint = directory.checkpoint(directory.resolve())
    contract = checkpoint.verify()
    with contextlib.redirect_stdout(sys.stderr):  # LeRobot prints as it loads
        eager = TorchBackend(checkpoint, "cpu")

    def choose(name: str, precision: str) -> Backend:
        with contextlib.redirect_stdout(sys.stderr):
            return choose_backend(
                checkpoint, contract, eager, backend=name, precision=precision, say=print
            )

    print(f"\n{kind.name} ({eager.nbytes / 1e6:.0f} MB)\n")
    print("| export | made, s | processor, s | loaded and checked again, s | processor, s |")
    print("|---|---|---|---|---|")
    for name in ("onnx", "openvino"):
        made, again = (taken(partial(choose, name, "float32")) for _ in range(2))
        print(f"| {name} | {made[0]:.1f} | {made[1]:.1f} | {again[0]:.1f} | {again[1]:.1f} |")
    sides = {label: choose(*options) for label, options in SIDES.items()}
    features = {key: contract.features[key] for key in eager.policy.config.input_features}
    reference = Reference(checkpoint, features, eager)
    differences = {label: reference.difference(side) for label, side in sides.items()}
    codec = contract.make_codec()
    rows = [codec.encode(observation(kind, seed)) for seed in range(max(BATCHES))]
    print(
        "\n| backend | batch | ms | best | of torch's | processor, ms | of torch's | difference |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for size in BATCHES:
        batch = {key: np.stack([row[key] for row in rows[:size]]) for key in features}
        calls = race(sides, batch, max(3, rounds // size))
        for label in sides:
            wall, cpu = zip(*calls[label], strict=True)
            of_torch, of_torchs_cpu = (
                statistics.median(
                    mine[which] / torchs[which]
                    for mine, torchs in zip(calls[label], calls["torch"], strict=True)
                )
                for which in (0, 1)
            )
            print(
                f"| {label} | {size} | {statistics.median(wall) * 1e3:.1f} | {min(wall) * 1e3:.1f}"
                f" | {of_torch:.2f} | {statistics.median(cpu) * 1e3:.1f} | {of_torchs_cpu:.2f}"
                f" | {differences[label]:.1g} |"
            )


def race(
    sides: dict[str, Backend], batch: dict[str, Any], rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Seconds and processor seconds of each call."""
    calls: dict[str, list[tuple[float, float]]] = {label: [] for label in sides}
    for turn in range(rounds + 1):
        for label, side in sides.items():
            spent = taken(partial(side.predict_chunk, batch))
            if turn:  # the first one warms up
                calls[label].append(spent)
    return calls


def taken(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds and processor seconds of it."""
    began, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - used


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policies", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    for name in arguments.policies:
        with tempfile.TemporaryDirectory() as directory:
            measure(KINDS[name], Path(directory) / "run", arguments.rounds)


if __name__ == "__main__":
    main()
