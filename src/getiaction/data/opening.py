"""Open LeRobot datasets from disk or hub, with one-line errors for damaged ones.

Missing files of a local root are never fetched from the hub. A repo id is looked up in LeRobot's
home directory, and on the hub unless offline mode is set.
"""

import copy
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets.exceptions import DatasetsError
from httpx import HTTPError
from huggingface_hub import constants as hub
from lerobot.configs import DEFAULT_DEPTH_UNIT
from lerobot.datasets import LeRobotDataset, LeRobotDatasetMetadata, dataset_metadata
from lerobot.datasets.utils import CompatibilityError, has_legacy_hub_download_metadata
from lerobot.utils.constants import IMAGENET_STATS
from lerobot.utils.feature_utils import dataset_to_policy_features

from foundation.text import printable
from foundation.writable import describe
from getiaction.data.border import require_sound_metadata, require_sound_rows
from getiaction.data.deltas import DeltaTimestamps
from getiaction.errors import GetiactionError
from getiaction.roots import INFO, require_dataset

logger = logging.getLogger(__name__)

NOT_FETCHED = (OSError, ValueError, RuntimeError, HTTPError, CompatibilityError)
UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, DatasetsError)


class LocalMetadata(LeRobotDatasetMetadata):
    """Metadata on disk; missing files are an error instead of being fetched from the hub."""

    def _pull_from_repo(self, *args: Any, **kwargs: Any) -> None:
        raise GetiactionError(
            f"the dataset at {self.root} is incomplete: files under meta/ are missing; "
            "convert it again"
        )


class LocalDataset(LeRobotDataset):
    """A dataset on disk; see :class:`LocalMetadata`."""

    def _download(self, *args: Any, **kwargs: Any) -> None:
        raise GetiactionError(
            f"the dataset at {self.root} is incomplete: episodes listed in its metadata have no "
            "data or video files; convert it again"
        )


def read_metadata(repo_id: str, root: Path | None, revision: str | None = None) -> Any:
    """Return LeRobot's metadata of a dataset at ``root``, or of ``repo_id`` without a root."""
    meta = _read(LocalMetadata, LeRobotDatasetMetadata, repo_id, root, revision)
    # As in a LeRobotDataset, whose depth frames come in this unit.
    meta.rescale_depth_stats(DEFAULT_DEPTH_UNIT)
    return meta


def read_dataset(
    repo_id: str, root: Path | None, revision: str | None = None, **options: Any
) -> LeRobotDataset:
    """Return the ``LeRobotDataset`` at ``root``, or of ``repo_id`` without a root.

    Args:
        repo_id: Hub name; with ``root`` it is only a label.
        root: Local directory.
        revision: Revision of the hub's repository.
        **options: Further arguments of ``LeRobotDataset``.

    Raises:
        GetiactionError: it cannot be read, or is not local and cannot be fetched.
    """
    dataset: LeRobotDataset = _read(
        LocalDataset, LeRobotDataset, repo_id, root, revision, **options
    )
    return dataset


def reopen(
    dataset: LeRobotDataset,
    *,
    episodes: Sequence[int] | None,
    deltas: DeltaTimestamps | None,
    image_transforms: Callable[..., Any] | None,
) -> LeRobotDataset:
    """Open the same dataset again, with other deltas and frames as uint8.

    The given object is unchanged, as it may be in use elsewhere.
    """
    return read_dataset(
        dataset.repo_id,
        Path(dataset.root),
        episodes=None if episodes is None else list(episodes),
        delta_timestamps=deltas,
        image_transforms=image_transforms,
        tolerance_s=dataset.tolerance_s,
        video_backend=dataset._video_backend,
        depth_output_unit=dataset.depth_output_unit,
        return_uint8=True,
    )


def with_statistics(meta: Any, *, use_imagenet_stats: bool) -> Any:
    """Return a copy of ``meta`` with checked statistics, optionally ImageNet's for cameras.

    Raises:
        GetiactionError: a feature that a policy would normalise has no statistics, or non-finite
            ones.
    """
    meta = copy.copy(meta)
    meta.stats = {key: dict(stats) for key, stats in (meta.stats or {}).items()}
    bare = [name for name in dataset_to_policy_features(meta.features) if name not in meta.stats]
    if bare:
        raise GetiactionError(
            f"the dataset at {meta.root} has no statistics of: {', '.join(bare)}; policies "
            "normalise by them, so convert it again"
        )
    for name in dataset_to_policy_features(meta.features):
        if not all(np.isfinite(np.asarray(v)).all() for v in meta.stats[name].values()):
            raise GetiactionError(
                f"the statistics of {name} in the dataset at {meta.root} have NaN or infinity, so "
                "normalised values would be NaN; leave out the episodes with such values"
            )
    if use_imagenet_stats:
        for key in meta.camera_keys:
            if key not in meta.depth_keys:
                for name, values in IMAGENET_STATS.items():
                    meta.stats[key][name] = torch.tensor(values, dtype=torch.float32)
    return meta


def require_episodes(episodes: Any, total: int) -> None:
    """Check a list of episode indices for a dataset of ``total`` episodes.

    Raises:
        GetiactionError: an index is not an integer, out of range or duplicate, or the list is
            empty.
    """
    if episodes is None:
        return
    if isinstance(episodes, str) or not isinstance(episodes, Sequence):
        raise GetiactionError(
            f"episodes is {printable(episodes)}; expected a list of indices, e.g. [0, 1, 2]"
        )
    if not episodes:
        raise GetiactionError("the list of episodes is empty; leave it out to use all")
    for index in episodes:
        if isinstance(index, bool) or not isinstance(index, Integral):
            raise GetiactionError(
                f"episodes has {printable(repr(index))}; expected integers, 0 to {total - 1}"
            )
    if wrong := [index for index in episodes if not 0 <= index < total]:
        raise GetiactionError(
            f"episodes {_few(wrong)} are out of range: the dataset has {total}, 0 to {total - 1}"
        )
    if twice := sorted(index for index, times in Counter(episodes).items() if times > 1):
        raise GetiactionError(
            f"episodes {_few(twice)} are given more than once; give each index once"
        )


def _few(indices: list[int]) -> str:
    # Python does not convert integers of thousands of digits to text.
    shown = ", ".join(str(n) if abs(n) < 1 << 63 else "a huge number" for n in indices[:5])
    more = len(indices) - 5
    return f"[{shown}]" if more <= 0 else f"[{shown}, and {more} more]"


def _read(
    local: Any, native: Any, repo_id: str, root: Path | None, revision: str | None, **options: Any
) -> Any:
    if root is None:
        root = _at_home(repo_id, revision)
    if root is None:
        return _fetch(native, repo_id, revision, **options)
    try:
        require_sound_metadata(root)
        if local is LocalDataset:
            require_sound_rows(root)
        # With a revision that is not a version number, LeRobot does not query the hub.
        return local(repo_id, root=root, revision="local", **options)
    except UNREADABLE as error:
        # The root cause names the file or column; the exceptions raised from it do not.
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        # It may be that the cache of Hugging Face datasets is not writable.
        why = describe(cause) if isinstance(cause, OSError) else cause
        raise GetiactionError(f"the dataset at {root} cannot be read: {why}") from error


def _fetch(native: Any, repo_id: str, revision: str | None, **options: Any) -> Any:
    try:
        fetched = native(repo_id, revision=revision, **options)
    except NOT_FETCHED as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise GetiactionError(
            f"the dataset {repo_id!r} cannot be fetched from the hub: {reason}; it is not in "
            f"{dataset_metadata.HF_LEROBOT_HOME} either"
        ) from error
    require_sound_metadata(Path(fetched.root))
    return fetched


def _at_home(repo_id: str, revision: str | None) -> Path | None:
    """Local directory of the dataset in LeRobot's home, or None if it must be fetched."""
    home: Path = dataset_metadata.HF_LEROBOT_HOME / repo_id
    # LeRobot downloads again what its old versions downloaded to this directory.
    fetched_once = has_legacy_hub_download_metadata(home)
    if (home / INFO).is_file() and (hub.HF_HUB_OFFLINE or not fetched_once):
        require_dataset(home)
        return home
    if not hub.HF_HUB_OFFLINE:
        return None
    snapshot = _snapshot(repo_id, revision)
    if snapshot is None:
        raise GetiactionError(
            f"no dataset {repo_id!r} in {dataset_metadata.HF_LEROBOT_HOME}, and "
            f"HF_HUB_OFFLINE forbids fetching it; unset that, or copy the dataset to {home}"
        )
    require_dataset(snapshot)
    return snapshot


def _snapshot(repo_id: str, revision: str | None) -> Path | None:
    """The newest revision that LeRobot has fetched, or the given one."""
    repo: Path = dataset_metadata.HF_LEROBOT_HUB_CACHE / f"datasets--{repo_id.replace('/', '--')}"
    commits = [repo / "refs" / revision] if revision else sorted((repo / "refs").glob("v*"))
    names = [path.read_text().strip() for path in commits if path.is_file()]
    for name in reversed([*([revision] if revision else []), *names]):
        if (repo / "snapshots" / name / INFO).is_file():
            return repo / "snapshots" / name
    return None
