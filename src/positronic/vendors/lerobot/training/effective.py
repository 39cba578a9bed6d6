"""Effective settings of a training run, and the provenance that goes into its checkpoints."""

import datetime
import json
import platform
import shlex
import socket
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import draccus
from lerobot.configs import PreTrainedConfig

from foundation.documents import Document, plain
from foundation.files import replace_text
from getiaction.policies.lerobot import policy_config
from positronic.codec.contract import versions
from positronic.dataset.trained_on import RECORDINGS, digests
from positronic.errors import DatasetError
from positronic.source import commit
from positronic.vendors.lerobot.conversion.provenance import Provenance
from positronic.vendors.lerobot.serving.provenance import PROVENANCE
from positronic.vendors.lerobot.training import config_file
from positronic.vendors.lerobot.training.job import TrainingJob
from positronic.vendors.lerobot.training.options import Options
from positronic.vendors.lerobot.training.policy_fields import NOT_FLAGS


class _Provenance(Document):
    starts: list[Any] = []  # noqa: RUF012 - pydantic copies it


class _Kept(Document):
    provenance: _Provenance = _Provenance()


def settings(options: Options, config: PreTrainedConfig | None = None) -> dict[str, Any]:
    """Return all settings as plain data, the fields of the policy's LeRobot config included."""
    config = config or policy_config(options.policy.name, options.policy.fields)
    # Through JSON, as LeRobot saves it: draccus leaves enum members unencoded.
    fields = plain(draccus.encode(config, PreTrainedConfig))
    unset = NOT_FLAGS | {config_file.TYPE}
    return config_file.document(options, {k: v for k, v in fields.items() if k not in unset})


def provenance(
    job: TrainingJob,
    meta: Any,
    step: int,
    device: str,
    precision: str,
    *,
    held_out: list[int] | None = None,
) -> dict[str, Any]:
    """Return dataset, command, versions and hardware of this start, as plain data.

    Args:
        job: The run.
        meta: LeRobot's metadata of the dataset.
        step: Step at which this start begins.
        device: Device of the training.
        precision: Lightning's precision.
        held_out: Episodes that are not trained on.
    """
    dataset = {
        "root": job.options.dataset_root,
        "episodes": meta.total_episodes,
        "frames": meta.total_frames,
        "fps": meta.fps,
        "held_out": held_out or [],
        "codec": job.contract.codec["name"],
        "stats_digest": job.contract.stats_digest,
        "versions": job.contract.versions,
    }
    start = {
        "step": step,
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "command": shlex.join(sys.argv),
        "device": device,
        "precision": precision,
        "python": platform.python_version(),
        "commit": commit(),
        "versions": {**versions(), "lightning": version("lightning")},
    }
    return {"dataset": dataset, "starts": [start]}


def keep(run_dir: Path, kept: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Write the settings into the run's directory atomically.

    Returns the provenance written with them, of this start and the earlier ones.

    Args:
        run_dir: The run's directory.
        kept: The settings.
        now: Provenance of this start; earlier ones stay listed.
    """
    file = run_dir / config_file.FILE_NAME
    before = config_file.read(file) if file.is_file() else {}
    starts = config_file.READER.validate(before, _Kept, str(file)).provenance.starts
    whole = {**now, "starts": [*starts, *now["starts"]]}
    run_dir.mkdir(parents=True, exist_ok=True)
    replace_text(file, config_file.dump({**kept, config_file.PROVENANCE: whole}))
    return whole


def with_recordings(
    made_by: Mapping[str, Any], dataset_root: Path, episodes: Sequence[int]
) -> dict[str, Any]:
    """Return a run's provenance with the digests of the recordings that it trains on, and edits.

    Without them if the dataset does not list its recordings.

    Args:
        made_by: The provenance.
        dataset_root: The dataset's local path.
        episodes: Indices of the episodes that are trained on.
    """
    try:
        origin = Provenance.load(dataset_root)
    except (OSError, DatasetError):
        return dict(made_by)
    listed = origin.episodes
    if len(listed) != made_by["dataset"]["episodes"]:
        return dict(made_by)
    uids = [uid for uid in (listed[index].uid for index in episodes) if uid]
    found: dict[str, Any] = {RECORDINGS: digests(uids)}
    if origin.edits:
        found["edits"] = [each.model_dump() for each in origin.edits]
    return {**made_by, "dataset": {**made_by["dataset"], **found}}


def sign(pretrained_model: Path, made_by: Mapping[str, Any]) -> None:
    """Write the run's provenance into a checkpoint, which may be shared without its run.

    Not into its contract, which is compared, and must not depend on the run.
    """
    text = json.dumps(made_by, indent=2) + "\n"
    (pretrained_model / PROVENANCE).write_text(text, encoding="utf-8")
