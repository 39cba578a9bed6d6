"""Training runs that ``training_step.py`` measures, each in a process of its own.

    python training_sides.py native|getiaction|physicalai JSON

The run pauses after each block of steps until it is told on its standard input to do another, so
that runs take turns on the same processor. Only the imports of the side that was asked for happen,
because physicalai lives in an environment without getiaction.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from turns import cpu_seconds

EVER = 10**9
LOG_EVERY = 200  # lerobot-train's default


class Blocks:
    """Measures the steps between two pauses."""

    def __init__(self, out: Any) -> None:
        self.out = out
        self.times: list[float] = []
        self.length = 0
        self.cpu = 0.0

    def step(self) -> None:
        """Note the end of a step; at the end of a block report, and wait for the next one."""
        self.times.append(time.perf_counter())
        if self.length == 0 or len(self.times) > self.length:
            self._pause()

    def _pause(self) -> None:
        if self.length:
            steps = [b - a for a, b in zip(self.times, self.times[1:], strict=False)]
            report = {"steps": steps, "cpu": (cpu_seconds() - self.cpu) / self.length}
        else:
            report = {}
        print(json.dumps(report), file=self.out, flush=True)
        line = sys.stdin.readline()
        if not line:
            os._exit(0)  # ends worker processes with it, which a normal end may wait for
        self.length = int(line)
        self.cpu = cpu_seconds()
        self.times = [time.perf_counter()]


def again_and_again(loader: Any) -> Iterator[Any]:
    """Yield the loader's first batch for ever; shallow copies, because steps rewrite its keys."""
    made = next(iter(loader))
    while True:
        yield dict(made)


def native(job: dict[str, Any], blocks: Blocks) -> None:
    """``lerobot_train.train()`` itself; a step ends when its ``update_policy`` returns."""
    from lerobot.configs.default import DatasetConfig
    from lerobot.configs.train import TrainPipelineConfig
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.scripts import lerobot_train

    update_policy: Any = lerobot_train.update_policy

    def measured(*args: Any, **kwargs: Any) -> Any:
        result = update_policy(*args, **kwargs)
        blocks.step()
        return result

    train: Any = lerobot_train
    train.update_policy = measured
    if job["made"]:
        train.cycle = again_and_again
    sys.argv = ["lerobot-train"]
    lerobot_train.train(
        TrainPipelineConfig(
            dataset=DatasetConfig(
                "local/steps", root=job["root"], video_backend=job["video_backend"]
            ),
            policy=ACTConfig(**job["policy"], device="cpu", push_to_hub=False),
            output_dir=Path(job["folder"]),
            batch_size=job["batch"],
            num_workers=job["workers"],
            steps=EVER,
            save_checkpoint=False,
            log_freq=LOG_EVERY,
            env_eval_freq=0,
        )
    )


def trainer_options(job: dict[str, Any], blocks: Blocks) -> dict[str, Any]:
    """What both of the Lightning sides are told; logs and checkpoints are off, as natively."""
    from lightning.pytorch import Callback

    class Measured(Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            blocks.step()

    return {
        "accelerator": "cpu",
        "max_steps": EVER,
        "log_every_n_steps": LOG_EVERY,
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "enable_progress_bar": job["bar"],
        "callbacks": [Measured()],
        "default_root_dir": job["folder"],
    }


def getiaction(job: dict[str, Any], blocks: Blocks) -> None:
    """A Lightning fit as anyone would write it."""
    from getiaction.data import LeRobotDataModule
    from getiaction.policies.lerobot import ACT
    from getiaction.train import Trainer

    data: Any = LeRobotDataModule(root=job["root"], train_batch_size=job["batch"])
    policy = ACT(**job["policy"])
    trainer = Trainer(**trainer_options(job, blocks))
    if job["made"]:
        data.prepare(policy.config)
        loader = data.train_dataloader()
        data.train_dataloader = lambda: _Made(loader)
    trainer.fit(policy, datamodule=data)


def physicalai(job: dict[str, Any], blocks: Blocks) -> None:
    """The same with the public ancestor, which needs the delta timestamps by hand."""
    from physicalai.data import LeRobotDataModule
    from physicalai.policies.lerobot import ACT
    from physicalai.train import Trainer

    length = job["policy"]["chunk_size"]
    data = LeRobotDataModule(
        repo_id="local/steps",
        root=job["root"],
        train_batch_size=job["batch"],
        delta_timestamps={"action": [i / job["fps"] for i in range(length)]},
        data_format="lerobot",
        video_backend=job["video_backend"],
        num_workers=job["workers"],
    )
    policy = ACT(**job["policy"], device="cpu")
    trainer = Trainer(**trainer_options(job, blocks))
    if job["made"]:
        loader = data.train_dataloader()
        data.train_dataloader = lambda: _Made(loader)
    trainer.fit(policy, datamodule=data)


class _Made:
    """An endless loader of one batch."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        return again_and_again(self.loader)


def main() -> None:
    """Run the side that the arguments name until the standard input ends."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    # Whatever the libraries print goes beside the reports.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    logging.disable(logging.INFO)
    sides = {"native": native, "getiaction": getiaction, "physicalai": physicalai}
    sides[sys.argv[1]](json.loads(sys.argv[2]), Blocks(out))


if __name__ == "__main__":
    main()
