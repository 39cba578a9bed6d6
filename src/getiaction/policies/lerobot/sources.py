"""Find the dataset metadata for a policy, and its native checkpoint."""

import logging
from pathlib import Path
from typing import Any

from huggingface_hub.constants import CONFIG_NAME
from lerobot.configs import PreTrainedConfig
from lerobot.utils.constants import CHECKPOINTS_DIR, LAST_CHECKPOINT_LINK, PRETRAINED_MODEL_DIR

from foundation import storage
from foundation.errors import StorageError
from getiaction.errors import GetiactionError
from getiaction.policies.safety import is_policy_file

logger = logging.getLogger(__name__)


def metadata_for(trainer: Any, config: PreTrainedConfig) -> Any:
    """Return LeRobot's metadata of the trainer's data, or None if it has none.

    A data module has it as ``meta``. The dataset of a plain ``DataLoader`` gets the delta
    timestamps that the policy needs, if it has none, and ImageNet's statistics for its cameras, as
    in native training.

    Raises:
        GetiactionError: that dataset has other delta timestamps than the policy needs.
    """
    data = getattr(trainer, "datamodule", None)
    if data is not None:
        return getattr(data, "meta", None)
    dataset = _dataset_of(_loaders(trainer))
    if dataset is None:
        return None
    from getiaction.data.deltas import set_deltas
    from getiaction.data.opening import with_statistics

    had = bool(dataset.delta_timestamps)
    set_deltas(dataset, config)
    if not had and dataset.delta_timestamps:
        spans = {key: len(times) for key, times in dataset.delta_timestamps.items()}
        logger.info("policy %r takes several frames a sample: %s", config.type, spans)
    return with_statistics(dataset.meta, use_imagenet_stats=True)


def metadata_of(source: Any, *, use_imagenet_stats: bool = True) -> Any:
    """Return LeRobot's metadata of a dataset, with the statistics to normalise by.

    Args:
        source: A ``LeRobotDataset``, its metadata, a data module, a local root, an ``s3://`` or
            ``hf://`` URI, or a name on the hub.
        use_imagenet_stats: Normalise camera images by ImageNet's mean and deviation.
    """
    from getiaction.data.lerobot import LeRobotDataModule
    from getiaction.data.opening import with_statistics

    if isinstance(source, str | Path):
        where: dict[str, Any] = {"root": source} if _is_path(source) else {"repo_id": source}
        return LeRobotDataModule(**where, use_imagenet_stats=use_imagenet_stats).meta
    if hasattr(source, "setup") and hasattr(source, "meta"):
        return source.meta
    meta = getattr(source, "meta", source)
    if not hasattr(meta, "features") or not hasattr(meta, "stats"):
        raise GetiactionError(
            f"a {type(source).__name__} is not a dataset: expected a LeRobotDataset, its metadata, "
            "a LeRobotDataModule, a local root or a name on the hub"
        )
    return with_statistics(meta, use_imagenet_stats=use_imagenet_stats)


def native_checkpoint(path: str | Path) -> Path:
    """Return LeRobot's ``pretrained_model`` in or below ``path``, fetched if it is on the Hub.

    Args:
        path: The directory itself, ``checkpoints/000040``, ``checkpoints`` or the run's directory;
            of several checkpoints, the last. Or ``USER/NAME`` or ``hf://USER/NAME[@REVISION]``.

    Raises:
        GetiactionError: there is none, or it cannot be fetched.
    """
    if storage.is_hub(path):
        return _fetched(str(path))
    path = Path(path).expanduser()
    last = Path(LAST_CHECKPOINT_LINK, PRETRAINED_MODEL_DIR)
    places = [Path(), Path(PRETRAINED_MODEL_DIR), last, Path(CHECKPOINTS_DIR, last)]
    for place in places:
        if (path / place / CONFIG_NAME).is_file():
            return path / place
    if not path.exists() and not _is_path(path):
        return _fetched(f"{storage.HUB}{path}")
    raise GetiactionError(
        f"there is no LeRobot policy at {path}: expected {CONFIG_NAME} there, or in one of "
        f"{', '.join(str(place) for place in places[1:])}"
    )


def _fetched(address: str) -> Path:
    try:
        return storage.fetch(address, only=is_policy_file, required=CONFIG_NAME)
    except StorageError as error:
        name = address.removeprefix(storage.HUB)
        raise GetiactionError(f"no policy can be loaded from {name}: {error}") from error


def _is_path(source: str | Path) -> bool:
    """Return whether it is a path rather than a hub repository, which is ``owner/name``."""
    text = str(source)
    return (
        "://" in text
        or text.startswith(("/", ".", "~"))
        or text.count("/") != 1
        or Path(text).exists()
    )


def _loaders(trainer: Any) -> Any:
    """Return the loaders given to fit, validate, test or predict instead of a data module."""
    return getattr(trainer, f"{trainer.state.fn.value}_loop")._data_source.instance


def _dataset_of(source: Any) -> Any:
    """Look for a ``LeRobotDataset`` in a loader, or in a list or dict of loaders."""
    if isinstance(source, dict):
        source = list(source.values())
    if isinstance(source, list | tuple):
        return next((d for d in map(_dataset_of, source) if d is not None), None)
    while source is not None and not hasattr(source, "meta"):
        source = getattr(source, "dataset", None)
    return source if hasattr(source, "delta_timestamps") else None
