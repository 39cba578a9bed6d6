"""Benchmark: random-access reading beside LeRobot's dataset in its DataLoader, in one run.

    python benchmarks/reading.py [--rounds=4]

Batches of 8, 100 actions and two 224x224 cameras each, uint8, in the shuffled order of training,
from a dataset of 8 episodes of 150 frames that LeRobot's writer encoded with its defaults. Both
sides read with PyAV, LeRobot's choice where the system has no FFmpeg, and with torchcodec. Each
round lets every contender read in its turn, while the others are stopped; a ratio is ours over the
best of LeRobot's settings in the same round. The first batch is timed from before the dataset is
opened, in a process that has imported everything.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from turns import Side, cpu_seconds, end_as_asked, quiet, serve, spread, torchcodec_env

BATCH = 8
CHUNK = 100
FPS = 15
# LeRobot's settings, those that fork before anything was decoded; and what ours are called.
NATIVE = {
    "2 forked workers": (2, "fork"),
    "2 spawned workers": (2, "spawn"),
    "4 spawned workers, the default": (4, "spawn"),
    "no workers": (0, None),
}
UNCACHED = "cache off"
OURS = {
    UNCACHED: "off",
    "cache on disk, first run": "disk",
    "cache on disk, later run": "disk",
    "cache in memory": "memory",
}
BACKENDS = ("pyav", "torchcodec")


def native_loader(job: dict[str, Any], mode: str) -> Any:
    """LeRobot's dataset in a DataLoader, as ``lerobot-train`` makes it."""
    from lerobot.datasets import EpisodeAwareSampler, LeRobotDataset
    from torch.utils.data import DataLoader

    workers, context = NATIVE[mode]
    dataset = LeRobotDataset(
        "local/scene",
        root=job["root"],
        delta_timestamps={"action": [step / FPS for step in range(CHUNK)]},
        return_uint8=True,
        video_backend=job["backend"],
    )
    episodes = dataset.meta.episodes
    order = EpisodeAwareSampler(
        episodes["dataset_from_index"], episodes["dataset_to_index"], shuffle=True, seed=1000
    )
    return DataLoader(
        dataset,
        BATCH,
        sampler=list(islice(order, job["samples"])),
        num_workers=workers,
        multiprocessing_context=context,
        prefetch_factor=4 if workers else None,
        persistent_workers=workers > 0,
    )


def our_loader(job: dict[str, Any], mode: str) -> Any:
    """The training loader of the data module."""
    from getiaction.data import LeRobotDataModule
    from getiaction.data.frame_cache import CacheLimits
    from getiaction.policies.lerobot import policy_config

    data = LeRobotDataModule(
        root=job["root"],
        train_batch_size=BATCH,
        video_backend=job["backend"],
        cache=OURS[mode],
        cache_limits=CacheLimits(directory=Path(job["kept"])),
    )
    data.prepare(policy_config("act", {"chunk_size": CHUNK, "n_action_steps": CHUNK}))
    return data.train_dataloader()


def run_side(job: dict[str, Any]) -> None:
    """Read whenever asked to, until there are no more questions."""
    make = native_loader if job["native"] else our_loader
    # Importing is none of the first batch's time.
    import_module("getiaction.data.module")
    import_module("getiaction.policies.lerobot")
    loaders: dict[str, Any] = {}

    def answer(mode: str) -> dict[str, float]:
        begun, cpu = time.perf_counter(), cpu_seconds()
        first = 0.0
        if mode not in loaders:
            loaders[mode] = make(job, mode)
        count = 0
        for batch in loaders[mode]:
            count += 1
            assert batch["action"].shape[1:] == (CHUNK, 8)
            assert batch["observation.images.left"].shape[1:] == (3, 224, 224)
            first = first or time.perf_counter() - begun
        wall = time.perf_counter() - begun
        return {
            "first": first,
            "rate": count * BATCH / wall,
            "cpu": cpu_seconds() - cpu,
            "n": count,
        }

    serve(answer)


def measure(options: argparse.Namespace, folder: Path) -> None:
    """Let all contenders read and print the tables."""
    import moving_scene

    with quiet(folder / "writing.log"):
        root = moving_scene.write(folder / "dataset")
    sides: list[tuple[bool, str, Side]] = []
    for backend in BACKENDS:
        env = {} if backend == "pyav" else torchcodec_env(folder / "ffmpeg")
        for native in (True, False):
            job = {
                "root": str(root),
                "kept": str(folder / f"kept-{backend}"),
                "backend": backend,
                "native": native,
                "samples": options.samples,
            }
            log = folder / f"{backend}-{native}.log"
            side = Side("LeRobot" if native else "getiaction", Path(__file__), job, log, env)
            sides.append((native, backend, side))
    rows = [
        (native, backend, mode, side)
        for native, backend, side in sides
        for mode in (NATIVE if native else OURS)
        # What is cached is read in the same way whatever decoded it, and the default is for here.
        if backend == "pyav" or mode in (UNCACHED, *list(NATIVE)[:2], "no workers")
    ]
    try:
        firsts = [side.ask(mode)["first"] for _, _, mode, side in rows]
        rounds = []
        for turn in range(options.rounds):
            order = list(enumerate(rows))
            found = {i: row[3].ask(row[2]) for i, row in (order if turn % 2 else order[::-1])}
            rounds.append([found[i] for i in range(len(rows))])
    finally:
        for _, _, side in sides:
            side.end()
    report(rows, firsts, rounds)


def report(rows: list[Any], firsts: list[float], rounds: list[list[dict[str, float]]]) -> None:
    """Print what each contender did, then the ratios."""
    print("| side | decoder | setting | samples/s | CPU-ms a sample | first batch after, s |")
    print("|---|---|---|---|---|---|")
    for i, (native, backend, mode, _) in enumerate(rows):
        rates = [each[i]["rate"] for each in rounds]
        cpu = statistics.median(1e3 * each[i]["cpu"] / (each[i]["n"] * BATCH) for each in rounds)
        print(
            f"| {'LeRobot' if native else 'getiaction'} | {backend} | {mode} "
            f"| {spread(rates, 0)} | {cpu:.3f} | {firsts[i]:.2f} |"
        )
    natives = [i for i, row in enumerate(rows) if row[0]]
    print(
        "\n| ours | samples/s beside LeRobot's best | processor time, LeRobot's least over ours |"
    )
    print("|---|---|---|")
    for i, (native, backend, mode, _) in enumerate(rows):
        if native:
            continue
        ratios = [each[i]["rate"] / max(each[j]["rate"] for j in natives) for each in rounds]
        work = [[side["cpu"] / side["n"] for side in each] for each in rounds]
        saved = [min(each[j] for j in natives) / each[i] for each in work]
        print(f"| {mode}, {backend} | {spread(ratios, 1)} | {spread(saved, 1)} |")


def main() -> None:
    """Print the tables."""
    if sys.argv[1:2] == ["--side"]:
        run_side(json.loads(sys.argv[2]))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", default=4, type=int, help="turns of each contender")
    parser.add_argument("--samples", default=320, type=int, help="that LeRobot reads in a turn")
    options = parser.parse_args()
    end_as_asked()
    # Decoding is not torch's, and what torch does here is too little to share out.
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name:
        measure(options, Path(name))


if __name__ == "__main__":
    main()
