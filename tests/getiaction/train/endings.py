"""A run that can be ended at any step in each way that training ends, and gone on with.

Also as a program, for several processes, which prints what went wrong, and nothing otherwise:

python -m tests.getiaction.train.endings ROOT RUNS_DIR DEVICES STEP...
"""

import contextlib
import datetime
import json
import multiprocessing
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from lerobot.utils.random_utils import set_seed
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from torch.multiprocessing.spawn import ProcessExitedException

from foundation.stopping import Stopped
from getiaction.data import LeRobotDataModule
from getiaction.policies.lerobot import LeRobotPolicy
from getiaction.train import Trainer
from getiaction.train.callbacks import EarlyStopping, StopOnSignal
from tests.getiaction.train.runs import BATCH, SEED, SMALL
from tests.waiting import join

ENDS = ("max_steps", "max_time", "early_stopping", "signal", "kill")
# Holds out one episode of three, which leaves 23 frames: 4 batches an epoch, 2 for each of two
# processes.
WHOLE: dict[str, int] = {"max_steps": 14, "max_epochs": -1}
EPOCHS: dict[str, int] = {"max_epochs": 8}
HOUR = datetime.timedelta(hours=1)
LOG, WEIGHTS = "log-{rank}.jsonl", "weights.pt"

type Step = tuple[list[int], float]


class Log(Callback):
    """Write down the frames and the loss of every step, and the weights at the end."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        with (self.run_dir / LOG.format(rank=trainer.global_rank)).open("a") as log:
            log.write(json.dumps([batch["index"].tolist(), outputs["loss"].item()]) + "\n")

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.is_global_zero:
            torch.save(pl_module.lerobot_policy.state_dict(), self.run_dir / WEIGHTS)


class TimeIsUp(Callback):
    """Let a timer's hour be over at a step."""

    def __init__(self, timer: Timer, at: int) -> None:
        self.timer, self.at = timer, at

    def on_train_batch_end(self, trainer: Any, *rest: Any) -> None:
        if trainer.global_step == self.at:
            self.timer._offset = int(HOUR.total_seconds())


class Send(Callback):
    """Send the first process a signal in the midst of a step."""

    def __init__(self, at: int, signum: signal.Signals) -> None:
        self.at, self.signum = at, signum

    def on_before_optimizer_step(self, trainer: Any, *rest: Any) -> None:
        if trainer.global_step == self.at - 1 and trainer.is_global_zero:
            os.kill(os.getpid(), self.signum)


class Periodic(Callback):
    """Save after each step, which is all that a killed run leaves."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    def on_train_batch_end(self, trainer: Any, *rest: Any) -> None:
        trainer.save_checkpoint(self.run_dir / f"step={trainer.global_step}.ckpt")


def ending(end: str | None, at: int) -> tuple[list[Callback], dict[str, Any]]:
    """Callbacks and trainer's options by which a run ends after step ``at``."""
    if end == "max_time":
        timer = Timer(HOUR)
        return [TimeIsUp(timer, at), timer], {}
    if end == "early_stopping":
        # No later validation is as good as the first one, which at once is good enough.
        how: dict[str, Any] = {"patience": at - 1, "min_delta": 1e9}
        if at == 1:
            how = {"stopping_threshold": 1e9}
        stop = EarlyStopping("val/loss", mode="min", check_on_train_epoch_end=False, **how)
        return [stop], {
            "limit_val_batches": 1,
            "val_check_interval": 1,
            "check_val_every_n_epoch": None,
        }
    if end == "signal":
        return [StopOnSignal(), Send(at, signal.SIGTERM)], {}
    if end == "interrupt":
        return [StopOnSignal(), Send(at, signal.SIGINT)], {}
    if end == "kill":
        return [Send(at + 1, signal.SIGKILL)], {}
    return [], {} if end is None else {"max_steps": at, "max_epochs": -1}


def train(
    root: Path,
    run_dir: Path,
    *,
    end: str | None = None,
    at: int = 0,
    resume_from: Path | None = None,
    limits: dict[str, int] = WHOLE,
    devices: int = 1,
    periodic: bool = False,
) -> None:
    """Train an ACT with dropout and VAE; what it did is in ``run_dir``.

    Its checkpoints are those that Lightning writes at the end of epochs or validations, the one of
    a signal, with ``periodic`` one of each step, and ``end.ckpt``, saved when ``fit`` has returned.
    """
    set_seed(SEED)
    run_dir.mkdir(parents=True)
    data = LeRobotDataModule(root=root, train_batch_size=BATCH, seed=SEED, val_split=0.3)
    callbacks, options = ending(end, at)
    if periodic:
        callbacks = [Periodic(run_dir), *callbacks]
    trainer = Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="auto" if devices == 1 else "ddp_fork_find_unused_parameters_true",
        callbacks=[Log(run_dir), *callbacks, ModelCheckpoint(run_dir, "epoch-{step}")],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=run_dir,
        **{"limit_val_batches": 0, **limits, **options},
    )
    policy = LeRobotPolicy("act", **SMALL)
    with contextlib.suppress(Stopped, ProcessExitedException):
        trainer.fit(policy, datamodule=data, ckpt_path=resume_from)
        if end is not None and devices == 1:
            trainer.save_checkpoint(run_dir / "end.ckpt")


def steps(run_dir: Path, rank: int = 0) -> list[Step]:
    """Return the frames and the loss of every step of a process."""
    lines = (run_dir / LOG.format(rank=rank)).read_text().splitlines()
    return [tuple(json.loads(line)) for line in lines]


def checkpoints(run_dir: Path, end: str, at: int) -> list[Path]:
    """Return the checkpoints of step ``at`` that a run left which ended so."""
    if end == "kill":
        return [run_dir / f"step={at}.ckpt"]
    found = [run_dir / "end.ckpt", *run_dir.glob(f"*step={at}.ckpt")]
    return [path for path in found if path.is_file()]


def differences(
    root: Path, runs: Path, whole: Path, end: str, at: int, *, devices: int = 1
) -> list[str]:
    """End a run after step ``at`` and go on; say what differs from ``whole``, to the bit."""
    stopped = runs / f"{end}-{at}"
    limits = WHOLE if end in ("max_steps", "kill") else EPOCHS
    periodic = end == "kill"
    how: dict[str, Any] = {
        "end": end,
        "at": at,
        "limits": limits,
        "devices": devices,
        "periodic": periodic,
    }
    if end == "kill" and devices == 1:
        # Not by fork: this process has threads, whose locks a child would have for ever.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([train.__module__])
        child = context.Process(target=train, args=(root, stopped), kwargs=how)
        child.start()
        join([child], "the run that kills itself")
        assert child.exitcode == -signal.SIGKILL
    else:
        train(root, stopped, **how)
    found = checkpoints(stopped, end, at)
    faults = [] if found else [f"{end} at {at} left no checkpoint"]
    for number, checkpoint in enumerate(found):
        rest = runs / f"{end}-{at}-rest-{number}"
        train(root, rest, resume_from=checkpoint, devices=devices)
        for rank in range(devices):
            expected = steps(whole, rank)
            if steps(stopped, rank)[:at] != expected[:at]:
                faults.append(f"{end} at {at}, process {rank}: other steps before it")
            if steps(rest, rank) != expected[at:]:
                faults.append(f"{end} at {at}, process {rank}: other steps after {checkpoint.name}")
        one, other = (torch.load(run / WEIGHTS) for run in (whole, rest))
        if not all(torch.equal(other[name], weight) for name, weight in one.items()):
            faults.append(f"{end} at {at}: other weights after {checkpoint.name}")
    return faults


def main(root: Path, runs: Path, devices: int, at: list[int]) -> None:
    """Try all endings after each of the steps ``at``."""
    train(root, runs / "whole", devices=devices)
    for end in ENDS:
        for step in at:
            for fault in differences(root, runs, runs / "whole", end, step, devices=devices):
                print(fault, flush=True)
            print(f"{end} at {step}: done", file=sys.stderr, flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), [int(a) for a in sys.argv[4:]])
