"""Benchmark: training throughput beside ``lerobot-train``, from the videos to the weights.

    python benchmarks/training_throughput.py [--rounds=4] [--amp]

ACT as LeRobot has it by default (width 512, 100 actions, ResNet-18 without downloaded weights) on
two 224x224 cameras, batch 8, on the CPU: ``lerobot_train.train()`` with its default of four worker
processes, a fit under ``getiaction.train.Trainer`` without options, and one with
``precision="bf16-mixed"`` and the frames kept decoded. All read one dataset that LeRobot's writer
encoded with its defaults, from the same seed. They take turns of a few steps, stopped between them
with their workers; a step lasts from the end of one optimizer step to the end of the next.

The second table has the losses beside each other. Without options they are equal to the last bit.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from turns import Line, Side, cpu_seconds, end_as_asked, quiet, spread

BATCH = 8
SEED = 1000
EVER = 10**9
WARM_UP = 2
POLICY: dict[str, Any] = {"pretrained_backbone_weights": None}


class Turns:
    """Counts steps, and waits for the next turn after those of one."""

    def __init__(self) -> None:
        self.line = Line()
        self.losses: list[float] = []
        self.times: list[float] = []
        self.length = 0
        self.cpu = 0.0

    def begin(self) -> None:
        """Wait for the first turn: all is imported."""
        self.line.say("ready")
        self._wait()

    def step(self, loss: float) -> None:
        """Note the end of a step."""
        self.losses.append(loss)
        self.times.append(time.perf_counter())
        if len(self.times) > self.length:
            steps = [b - a for a, b in zip(self.times, self.times[1:], strict=False)]
            cpu = (cpu_seconds() - self.cpu) / self.length
            self.line.say({"steps": steps, "cpu": cpu, "losses": self.losses})
            self.losses = []
            self._wait()

    def _wait(self) -> None:
        self.length = self.line.hear()
        self.cpu = cpu_seconds()
        self.times = [time.perf_counter()]


def native(job: dict[str, Any], turns: Turns) -> None:
    """``lerobot_train.train()`` itself; a step ends when its ``update_policy`` returns."""
    from lerobot.configs.default import DatasetConfig
    from lerobot.configs.train import TrainPipelineConfig
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.scripts import lerobot_train

    from getiaction.data.frames import video_backend

    train: Any = lerobot_train
    update_policy = train.update_policy

    def measured(tracker: Any, *args: Any, **kwargs: Any) -> Any:
        result = update_policy(tracker, *args, **kwargs)
        turns.step(tracker.loss.val)
        return result

    train.update_policy = measured
    sys.argv = ["lerobot-train"]
    turns.begin()
    train.train(
        TrainPipelineConfig(
            dataset=DatasetConfig("local/scene", root=job["root"], video_backend=video_backend()),
            policy=ACTConfig(**POLICY, device="cpu", push_to_hub=False, use_amp=job["amp"]),
            output_dir=Path(job["folder"]),
            batch_size=BATCH,
            seed=SEED,
            steps=EVER,
            save_checkpoint=False,
            env_eval_freq=0,
        )
    )


def ours(job: dict[str, Any], turns: Turns) -> None:
    """A Lightning fit as anyone would write it."""
    from lerobot.utils.random_utils import set_seed
    from lightning.pytorch import Callback

    from getiaction.data import LeRobotDataModule
    from getiaction.policies.lerobot import ACT
    from getiaction.train import Trainer

    class Measured(Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *rest: Any) -> None:
            turns.step(outputs["loss"].item())

    turns.begin()
    data = LeRobotDataModule(
        root=job["root"], train_batch_size=BATCH, seed=SEED, cache=job["cache"]
    )
    set_seed(SEED)
    trainer = Trainer(
        accelerator="cpu",
        precision=job["precision"],
        max_steps=EVER,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        callbacks=[Measured()],
        default_root_dir=job["folder"],
    )
    trainer.fit(ACT(**POLICY), datamodule=data)


def measure(options: argparse.Namespace, folder: Path) -> None:
    """Let the sides train in turns and print the tables."""
    import moving_scene

    with quiet(folder / "writing.log"):
        root = str(moving_scene.write(folder / "dataset"))
    jobs: dict[str, dict[str, Any]] = {
        "LeRobot": {"native": True, "amp": False},
        "ours": {"native": False, "precision": "32-true", "cache": "off"},
        "ours, bf16-mixed, cached": {
            "native": False,
            "precision": "bf16-mixed",
            "cache": "disk",
        },
    }
    if options.amp:
        jobs["LeRobot, use_amp"] = {"native": True, "amp": True}
    env = {"XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": str(options.threads)}
    sides = []
    for number, (name, job) in enumerate(jobs.items()):
        job |= {"root": root, "folder": str(folder / f"run-{number}")}
        sides.append(Side(name, Path(__file__), job, folder / f"{number}.log", env))
    firsts: dict[str, Any] = {}
    rounds: list[dict[str, Any]] = []
    try:
        for side in sides:
            firsts[side.name] = side.ask(WARM_UP)
        for turn in range(options.rounds):
            order = sides if turn % 2 else sides[::-1]
            rounds.append({side.name: side.ask(options.steps) for side in order})
    finally:
        for side in sides:
            side.end()
    report(firsts, rounds)


def report(firsts: dict[str, Any], rounds: list[dict[str, Any]]) -> None:
    """Print the speeds and the losses."""
    names = list(firsts)
    reference = names[0]
    walls = {n: [statistics.median(each[n]["steps"]) for each in rounds] for n in names}
    cpus = {n: [each[n]["cpu"] for each in rounds] for n in names}
    print("| side | samples/s | times LeRobot's | by processor time | first step after, s |")
    print("|---|---|---|---|---|")
    for name in names:
        speed = spread([BATCH / wall for wall in walls[name]])
        wall = spread([a / b for a, b in zip(walls[reference], walls[name], strict=True)])
        cpu = spread([a / b for a, b in zip(cpus[reference], cpus[name], strict=True)])
        print(f"| {name} | {speed} | {wall} | {cpu} | {firsts[name]['steps'][0]:.1f} |")
    losses = {
        name: firsts[name]["losses"] + [loss for each in rounds for loss in each[name]["losses"]]
        for name in names
    }
    print(f"\n| step | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}")
    for step, row in enumerate(zip(*losses.values(), strict=True), start=1):
        print(f"| {step} | {' | '.join(f'{loss:.6f}' for loss in row)} |")
    equal = losses[names[0]] == losses[names[1]]
    print(f"\nLosses without options equal LeRobot's to the last bit: {'yes' if equal else 'NO'}")


def main() -> None:
    """Print the tables, or be one of the sides."""
    if sys.argv[1:2] == ["--side"]:
        job = json.loads(sys.argv[2])
        (native if job["native"] else ours)(job, Turns())
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", default=4, type=int, help="turns of each side")
    parser.add_argument("--steps", default=4, type=int, help="steps in a turn")
    parser.add_argument("--threads", default=len(os.sched_getaffinity(0)), type=int)
    parser.add_argument("--amp", action="store_true", help="LeRobot in bfloat16 as well")
    options = parser.parse_args()
    end_as_asked()
    with tempfile.TemporaryDirectory() as name:
        measure(options, Path(name))


if __name__ == "__main__":
    main()
