"""Resume check: refuse to resume a run with other settings or other held-out episodes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import draccus
from lerobot.configs import PreTrainedConfig
from lerobot.utils.constants import PRETRAINED_MODEL_DIR

from foundation.documents import Document, Reader, plain
from foundation.text import printable
from getiaction.data import DataModule
from getiaction.data.splits import held_out_natively
from positronic.errors import CheckpointError
from positronic.vendors.lerobot.training import config_file
from positronic.vendors.lerobot.training.job import TrainingJob

# Settings that change the batches or the numerical results.
BINDING = ("batch_size", "seed", "devices", "precision", "accumulate", "compile", "val_split")


TRAIN_CONFIG = "train_config.json"

READER = Reader(
    error=CheckpointError,
    mend="take the checkpoint from its training run again, or begin another run",
    size=4 << 20,
    allow_nan=True,
)


class TrainConfig(Document):
    """LeRobot's record of a run: the fields that are compared."""

    policy: dict[str, Any]
    batch_size: int | None = None
    seed: int | None = None


class _Dataset(Document):
    held_out: list[int] | None = None


class _Provenance(Document):
    dataset: _Dataset = _Dataset()


class RunConfig(Document):
    """A run's ``config.yaml``: the fields that are compared."""

    policy: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies it
    provenance: _Provenance = _Provenance()


def require_same_run(
    job: TrainingJob, checkpoint: Path, config: PreTrainedConfig, data: DataModule
) -> None:
    """Refuse to resume a run with other settings than it was started with.

    Args:
        job: The run to resume.
        checkpoint: The checkpoint to resume from.
        config: The policy's config.
        data: The dataset, and the episodes of it that are held out.

    Raises:
        CheckpointError: names each difference, or the unreadable file.
    """
    file = checkpoint / PRETRAINED_MODEL_DIR / TRAIN_CONFIG
    try:
        saved = READER.load_json(file, TrainConfig)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}") from error
    own = job.run_dir / config_file.FILE_NAME
    settings = config_file.read(own) if own.is_file() else {}
    found = differences(job, saved, settings, config, str(own))
    before, now = _held_out(settings, str(own), data)
    if before != now:
        found.append(
            f"--val_split={job.options.val_split} held out episodes {printable(before, 60)} and "
            f"holds out {printable(now, 60)} now"
        )
    if found:
        raise CheckpointError(
            f"{job.run_dir} cannot go on as something else: {'; '.join(found)}. "
            "Give the flags it was begun with, or begin another run"
        )


def differences(
    job: TrainingJob,
    saved: TrainConfig,
    settings: Mapping[str, Any],
    config: PreTrainedConfig,
    source: str,
) -> list[str]:
    """Return the settings that differ from those of a checkpoint and a run's file ``source``."""
    kept = READER.validate(dict(settings), RunConfig, source)
    pairs = {
        f"--policy.{name}": (saved.policy.get(name), value)
        for name, value in draccus.encode(config, PreTrainedConfig).items()
        if name != "device"
    }
    warmup = job.options.policy.warmup_steps
    pairs["--policy.warmup_steps"] = (kept.policy.get("warmup_steps", warmup), warmup)
    before = {**saved.model_dump(exclude_none=True), **settings}
    for name in BINDING:
        now = getattr(job.options, name)
        pairs[f"--{name}"] = (before.get(name, now), now)
    return [
        f"{name} was {printable(then)} and is {now}"
        for name, (then, now) in ((name, (then, plain(now))) for name, (then, now) in pairs.items())
        if then != now
    ]


def _held_out(
    settings: Mapping[str, Any], source: str, data: DataModule
) -> tuple[list[int], list[int]]:
    """Return the episodes held out when the run was started, and those held out now."""
    now = data.split()[1]
    before = READER.validate(dict(settings), RunConfig, source).provenance.dataset.held_out
    if before is None:  # not recorded by older versions
        before = held_out_natively(data.meta, data.episodes, data.val_split)
    return sorted(before), sorted(now)
