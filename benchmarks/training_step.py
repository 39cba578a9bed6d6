"""Benchmark: training steps beside LeRobot's own loop, and the public ancestor's, in one run.

    python benchmarks/training_step.py [--rounds=6] [--ancestor=PYTHON]

Each contender is a whole training run in a process of its own: ``lerobot_train.train()``, a fit
under ``getiaction.train.Trainer`` and, if the Python of an environment with physicalai-train 0.3.0
is given, a fit under its Trainer. They take turns, a block of steps each, so that whatever else the
machine does meets all of them; a step is the wall time from the end of one optimizer step to the
end of the next. The first steps of a block, which use what loaders fetched meanwhile, do not count.

A ratio is ours over theirs in one round, of the medians of the steps; below 1 we are faster.
"""

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turns import Child

from getiaction.data.frames import video_backend

SIDES = Path(__file__).with_name("training_sides.py")
FPS = 15


@dataclass(frozen=True)
class Kind:
    """A policy and how it is trained."""

    cameras: tuple[str, ...]
    batch: int


# As positronic's presets .act_state and .act_64px, the latter in float32.
POLICY: dict[str, Any] = {
    "chunk_size": 20,
    "n_action_steps": 10,
    "dim_model": 128,
    "n_heads": 4,
    "dim_feedforward": 512,
    "n_encoder_layers": 2,
    "use_vae": False,
    "pretrained_backbone_weights": None,
}
KINDS = {
    "state": Kind(cameras=(), batch=32),
    "two 64x64 cameras": Kind(cameras=("left", "side"), batch=8),
}


@dataclass(frozen=True)
class Block:
    """Steps to do in one turn, of which the first ones are not counted."""

    steps: int
    uncounted: int


MADE_BEFORE = Block(steps=25, uncounted=3)
# LeRobot's four workers fetch 16 batches ahead, while others have their turn.
END_TO_END = Block(steps=44, uncounted=24)


class Contender(Child):
    """A training run in another process, and what it measured."""

    def __init__(self, python: str, side: str, name: str, threads: int, **job: Any) -> None:
        """Start it; it waits before its first measured step."""
        command = [python, str(SIDES), side, json.dumps(job)]
        log = Path(f"{job['folder']}.log")
        super().__init__(name, command, log, {"OMP_NUM_THREADS": str(threads)})
        self.medians: list[float] = []
        self.cpu: list[float] = []

    def take_turn(self, block: Block, *, counts: bool) -> None:
        """Let it do a block of steps."""
        answer = self.ask(block.steps)
        if counts:
            self.medians.append(statistics.median(answer["steps"][block.uncounted :]))
            self.cpu.append(answer["cpu"])


def write_dataset(root: Path, cameras: tuple[str, ...]) -> None:
    """Write 12 episodes of 60 random rows with LeRobot's writer."""
    import numpy as np
    from lerobot.configs import RGBEncoderConfig
    from lerobot.datasets import LeRobotDataset

    features: dict[str, Any] = {
        "observation.state": {"dtype": "float32", "shape": (8,), "names": None},
        "action": {"dtype": "float32", "shape": (8,), "names": None},
    }
    if not cameras:
        shape = {"dtype": "float32", "shape": (10,), "names": None}
        features["observation.environment_state"] = shape
    for camera in cameras:
        features[f"observation.images.{camera}"] = {
            "dtype": "video",
            "shape": (64, 64, 3),
            "names": ["height", "width", "channels"],
        }
    dataset = LeRobotDataset.create(
        "local/steps",
        FPS,
        features,
        root=root,
        use_videos=bool(cameras),
        rgb_encoder=RGBEncoderConfig(vcodec="h264"),
    )
    rng = np.random.default_rng(0)
    for _ in range(12):
        for _ in range(60):
            frame: dict[str, Any] = {"task": "move"}
            for name, feature in features.items():
                if feature["dtype"] == "video":
                    frame[name] = rng.integers(0, 256, feature["shape"], dtype=np.uint8)
                else:
                    frame[name] = rng.normal(0, 1, feature["shape"]).astype(np.float32)
            dataset.add_frame(frame)
        dataset.save_episode()
    dataset.finalize()


def compare(label: str, kind: Kind, made: bool, options: argparse.Namespace) -> None:
    """Run the contenders against each other and print a row for each of them but ours."""
    root = options.folder / f"{label.replace(' ', '-')}-dataset"
    if not root.exists():
        write_dataset(root, kind.cameras)
    # Native workers: none matter for a batch that is made already; else its default, and none.
    runs = [(sys.executable, "getiaction", "getiaction", 0)]
    if made:
        runs.append((sys.executable, "native", "LeRobot 0.6.1", 0))
    else:
        runs += [(sys.executable, "native", f"LeRobot 0.6.1, {n} workers", n) for n in (4, 0)]
    if options.ancestor and made:
        runs.append((options.ancestor, "physicalai", "physicalai-train 0.3.0", 0))
    elif options.ancestor:
        runs += [
            (options.ancestor, "physicalai", f"physicalai-train 0.3.0, {n} workers", n)
            for n in (2, 0)
        ]
    block = MADE_BEFORE if made else END_TO_END
    contenders = []
    for number, (python, side, name, workers) in enumerate(runs):
        contenders.append(
            Contender(
                python,
                side,
                name,
                options.threads,
                root=str(root),
                folder=str(options.folder / f"{root.name}-{made}-{number}"),
                policy=POLICY,
                batch=kind.batch,
                workers=workers,
                made=made,
                fps=FPS,
                video_backend=video_backend(),
                bar=options.bar,
            )
        )
        # One after the other, because starting is the heaviest that they do.
        contenders[-1].answer()
    for turn in range(options.rounds + 1):
        for contender in contenders if turn % 2 else contenders[::-1]:
            contender.take_turn(block, counts=turn > 0)
    for contender in contenders:
        contender.end()
    ours, *others = contenders
    what = f"{label}, {'batch made before' if made else 'end to end'}"
    for other in others:
        print(row(what, other, ours), flush=True)


def row(what: str, other: Contender, ours: Contender) -> str:
    """A row of the table."""
    ratios = [a / b for a, b in zip(ours.medians, other.medians, strict=True)]
    cpu = statistics.median(a / b for a, b in zip(ours.cpu, other.cpu, strict=True))
    theirs_ms, ours_ms = (1e3 * statistics.median(side.medians) for side in (other, ours))
    return (
        f"| {what} | {other.name} | {theirs_ms:.2f} | {ours_ms:.2f} "
        f"| {statistics.median(ratios):.3f} | {min(ratios):.3f} to {max(ratios):.3f} | {cpu:.3f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", default=6, type=int, help="blocks of each contender")
    parser.add_argument("--threads", default=1, type=int, help="threads of torch")
    parser.add_argument("--bar", action="store_true", help="with Lightning's progress bar")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--ancestor", help="Python of an environment with physicalai-train 0.3.0")
    options = parser.parse_args()
    print("| what | beside | theirs, ms | ours, ms | ratio | from to | ratio of CPU time |")
    print("|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        options.folder = Path(name)
        for label, kind in KINDS.items():
            for made in (True, False):
                if options.only in f"{label} {'made' if made else 'end'}":
                    compare(label, kind, made, options)


if __name__ == "__main__":
    main()
