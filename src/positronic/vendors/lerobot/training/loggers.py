"""Lightning loggers of a training run: TensorBoard always, WandB as asked."""

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger

from foundation.errors import MissingDependency
from positronic.vendors.lerobot.training.job import in_first_process

WANDB_PROJECT = "lerobot-train"
WANDB_KEY = "WANDB_API_KEY"


def loggers(run_dir: Path, *, wandb: str, step: int, settings: Mapping[str, Any]) -> list[Logger]:
    """Open the sinks of a run; one that goes on adds to the curves that it has.

    Args:
        run_dir: Gets ``tensorboard`` and ``wandb``; its name is the run's.
        wandb: ``auto``, ``online``, ``offline`` or ``off``.
        step: Where the run begins; what an earlier start logged after that is done again.
        settings: Of the run, for WandB to show.

    Raises:
        MissingDependency: WandB is asked for and not installed.
    """
    # Nothing is made here: every process comes by, and the first one takes the run's name.
    purge: dict[str, Any] = {"purge_step": step + 1} if step else {}
    sinks: list[Logger] = [TensorBoardLogger(run_dir, name="", version="tensorboard", **purge)]
    if wandb == "auto":
        wandb = "online" if os.environ.get(WANDB_KEY) else "off"
    if wandb != "off":
        sinks.append(_wandb(run_dir, offline=wandb == "offline", settings=settings))
    return sinks


def finish(sinks: Iterable[Logger]) -> None:
    """Let WandB write down what it holds, before the run's files are looked at."""
    for sink in sinks:
        end = getattr(getattr(sink, "experiment", None), "finish", None)
        # All but the first process have a stand-in that answers to any name.
        if end is not None and "wandb" in sys.modules:
            end()
            # A process of WandB's own writes the file; it has done so for certain when it ends.
            sys.modules["wandb"].teardown()


def _wandb(run_dir: Path, *, offline: bool, settings: Mapping[str, Any]) -> Logger:
    from lightning.pytorch.loggers import WandbLogger

    try:
        sink = WandbLogger(
            project=WANDB_PROJECT,
            name=run_dir.name,
            id=run_dir.name,
            save_dir=run_dir,
            offline=offline,
            resume=None if offline else "allow",
            config=dict(settings),
        )
    except ModuleNotFoundError as error:
        raise MissingDependency("--wandb needs WandB: pip install wandb, or --wandb=off") from error
    if offline and in_first_process():
        print(
            f"WandB: offline; `wandb sync {run_dir}/wandb/offline-run-*` uploads", file=sys.stderr
        )
    return sink
