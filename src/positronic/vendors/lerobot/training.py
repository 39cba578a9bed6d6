"""The training run behind the command line; importing it imports torch, LeRobot and Lightning."""

import json
import logging
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import draccus
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.optim.schedulers import CosineAnnealingWithWarmupSchedulerConfig, LRSchedulerConfig
from lerobot.utils.constants import PRETRAINED_MODEL_DIR
from lerobot.utils.random_utils import set_seed
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from tqdm import tqdm

from getiaction.data import LeRobotDataModule
from getiaction.policies.lerobot import LeRobotPolicy, policy_config
from getiaction.train import NativeCheckpoint, NativeResume, StepReport, Trainer, precision_of
from getiaction.train.checkpoint import remove_unfinished
from positronic.codec import Contract
from positronic.errors import CheckpointError, UsageError
from positronic.vendors.lerobot.job import TrainingJob

WANDB_PROJECT = "lerobot-train"


def run(job: TrainingJob) -> None:
    """Train as ``job`` says; returns when the last checkpoint is written."""
    _show_log()
    device = choose_device(job.device)
    config = policy_config(job.policy.name, job.policy.fields)
    data = LeRobotDataModule(
        root=job.dataset_root,
        train_batch_size=job.batch_size,
        num_workers="auto" if job.num_workers is None else job.num_workers,
        seed=job.seed,
    )
    set_seed(job.seed)
    module = LeRobotPolicy(
        config=config, scheduler=_schedule(job.policy.warmup_steps), total_steps=job.steps
    )
    callbacks: list[Any] = []
    pretrained = None
    if job.resume_from is not None:
        pretrained = job.resume_from / PRETRAINED_MODEL_DIR
        resume = NativeResume(job.resume_from)
        if resume.step >= job.steps:
            raise UsageError(
                f"{job.run_dir} is at step {resume.step} already; give a larger --steps"
            )
        remove_unfinished(job.resume_from.parent)
        callbacks.append(resume)
    module.create(data.meta, device=device, pretrained=pretrained)
    if job.resume_from is not None:
        require_same_training(job, config)
    contract = complete(job.contract, config)
    if contract is None:
        print(
            "the dataset has no contract, so its checkpoints will have none; serving them needs "
            "--codec",
            file=sys.stderr,
        )
    callbacks += [
        NativeCheckpoint(
            job.run_dir,
            total_steps=job.steps,
            save_freq=job.save_freq,
            complete=None if contract is None else contract.save,
        ),
        StepReport(total_steps=job.steps, log_freq=job.log_freq),
    ]
    # Before the run's directory is made: a dataset that cannot be read leaves none behind.
    data.prepare(config)
    _announce(job, module, data, device)
    trainer = Trainer(
        max_steps=job.steps,
        max_epochs=-1,
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=1,
        precision=precision_of(config, device),
        callbacks=callbacks,
        logger=_loggers(job.run_dir),
        log_every_n_steps=job.log_freq,
        # Checkpoints, progress and a summary are those of the callbacks and lines above.
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        default_root_dir=job.run_dir,
    )
    begun = time.monotonic()
    with warnings.catch_warnings():
        _ignore_foreign_warnings()
        trainer.fit(module, datamodule=data)
    print(
        f"trained {job.steps} steps in {time.monotonic() - begun:.0f} s: "
        f"{job.run_dir / 'checkpoints' / 'last'}",
        file=sys.stderr,
    )


def choose_device(asked: str) -> str:
    """``cuda`` or ``cpu``; refuses CUDA where there is none."""
    available = torch.cuda.is_available()
    if asked == "cuda" and not available:
        raise UsageError("--device=cuda, but torch finds no CUDA device; use --device=cpu")
    return "cuda" if available and asked != "cpu" else "cpu"


def complete(contract: Contract | None, config: PreTrainedConfig) -> Contract | None:
    """Add what only the policy knows to the dataset's contract."""
    if contract is None:
        return None
    return contract.replace(
        chunk_size=getattr(config, "chunk_size", None),
        n_action_steps=getattr(config, "n_action_steps", None),
    )


def require_same_training(job: TrainingJob, config: PreTrainedConfig) -> None:
    """Refuse to go on with another policy, batch size or seed than the run was begun with.

    Raises:
        CheckpointError: naming each difference.
    """
    assert job.resume_from is not None
    path = job.resume_from / PRETRAINED_MODEL_DIR / "train_config.json"
    saved: dict[str, Any] = json.loads(path.read_text())
    now = draccus.encode(config, PreTrainedConfig)
    pairs = {
        **{f"--policy.{name}": (saved["policy"].get(name), value) for name, value in now.items()},
        "--batch_size": (saved["batch_size"], job.batch_size),
        "--seed": (saved["seed"], job.seed),
    }
    del pairs["--policy.device"]
    # Through JSON, as the saved side went.
    found = [
        f"{name} was {before} and is {after}"
        for name, (before, after) in json.loads(json.dumps(pairs)).items()
        if before != after
    ]
    if found:
        raise CheckpointError(
            f"{job.run_dir} cannot go on as something else: {'; '.join(found)}. "
            "Give the flags it was begun with, or begin another run"
        )


def _schedule(warmup_steps: int | None) -> LRSchedulerConfig | None:
    if warmup_steps is None:
        return None
    return CosineAnnealingWithWarmupSchedulerConfig(num_warmup_steps=warmup_steps)


def _announce(
    job: TrainingJob, module: LeRobotPolicy, data: LeRobotDataModule, device: str
) -> None:
    weights = sum(p.numel() for p in module.lerobot_policy.parameters())
    threads = f", {torch.get_num_threads()} threads" if device == "cpu" else ""
    print(
        f"training {job.policy.name} ({weights / 1e6:.1f} M weights) on {data.meta.total_frames} "
        f"frames of {data.meta.total_episodes} episodes, batch {job.batch_size}, {device}{threads}",
        file=sys.stderr,
        flush=True,
    )


def _loggers(run_dir: Path) -> list[Logger]:
    run_dir.mkdir(parents=True, exist_ok=True)
    sinks: list[Logger] = [TensorBoardLogger(run_dir, name="", version="tensorboard")]
    if os.environ.get("WANDB_API_KEY"):
        from lightning.pytorch.loggers import WandbLogger

        sinks.append(
            WandbLogger(project=WANDB_PROJECT, name=run_dir.name, id=run_dir.name, save_dir=run_dir)
        )
    return sinks


class _AboveTheBar(logging.Handler):
    """Prints to stderr without tearing the progress bar that may be drawn there."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line."""
        tqdm.write(self.format(record), file=sys.stderr)


def _show_log() -> None:
    """Print what getiaction has to say, once and as it is, whatever the root logger does."""
    log = logging.getLogger("getiaction")
    log.setLevel(logging.INFO)
    if not log.handlers:
        log.addHandler(_AboveTheBar())
        log.propagate = False


def _ignore_foreign_warnings() -> None:
    """Nothing that the user of this command could do anything about."""
    for module in ("lightning", "torch", "lerobot", "tensorboard"):
        warnings.filterwarnings("ignore", module=rf"{module}\b")
