"""GatheredDataset: a LeRobot dataset as arrays, from which batches are gathered by indexing.

``LeRobotDataset`` builds one item in 2.5 to 12 ms, half of it for converting table rows to tensors
one by one. Here the columns are arrays, a batch takes one indexing operation per key, and frames
are decoded a batch at a time, or are cached. Batches equal, bit for bit and key for key, those of
``LeRobotDataset`` with torch's default collate.
"""

import logging
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from lerobot.datasets import LeRobotDataset
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from getiaction.data.episodes import episode_lengths
from getiaction.data.frame_cache import GIB, CacheLimits, kept_on_disk
from getiaction.data.frames import Frames, VideoFrames, held_in_memory
from getiaction.errors import GetiactionError

logger = logging.getLogger(__name__)

type Batch = dict[str, Any]
type Cache = Literal["auto", "off", "memory", "disk"]
CACHES = get_args(Cache.__value__)

NUMERIC = ("float", "int", "uint", "bool")


class GatheredDataset(Dataset[dict[str, Any]]):
    """The rows of ``dataset`` as arrays; gathers batches in ``__getitems__``.

    Use it in a ``DataLoader`` with :func:`as_is` as ``collate_fn``: items are whole batches.

    Args:
        dataset: Opened with ``return_uint8=True`` if it has videos, and with its delta timestamps.
        cache: Cache of decoded frames; see :class:`getiaction.data.DataModule`.
        limits: Limits of the cache.

    Raises:
        ValueError: the dataset cannot be held as arrays.
        GetiactionError: its videos cannot be decoded, or do not fit the cache.
    """

    def __init__(
        self, dataset: LeRobotDataset, cache: Cache = "auto", limits: CacheLimits | None = None
    ) -> None:
        reason = why_not_gathered(dataset)
        if reason is not None:
            raise ValueError(f"this dataset cannot be held as arrays: {reason}")
        self.dataset = dataset
        meta: Any = dataset.meta
        names = [k for k in dataset.hf_dataset.column_names if meta.features[k]["dtype"] != "image"]
        table = dataset.hf_dataset.select_columns(names).with_format("numpy")[:]
        # Tensors, because these are shared with worker processes.
        self._columns: dict[str, Tensor] = {k: _as_item_dtype(table[k]) for k in names}
        self._deltas = {
            key: np.asarray(deltas) for key, deltas in (dataset.reader.delta_indices or {}).items()
        }
        self._tasks: list[str] = meta.tasks.index.tolist()
        lengths = episode_lengths(dataset)
        self._end = np.repeat(np.cumsum(lengths), lengths)
        self._begin = self._end - np.repeat(lengths, lengths)
        videos = VideoFrames(dataset, self._columns["timestamp"].numpy())
        self._video_keys = videos.keys
        self._frames = _kept(videos, cache, limits or CacheLimits())

    def __len__(self) -> int:
        return len(self._begin)

    @property
    def decodes(self) -> bool:
        """Whether batches are slow enough to prefetch in threads."""
        return self._frames.decodes

    def __getitem__(self, index: int) -> Batch:
        item: Batch = self.dataset[index]
        return item

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Gather one batch: tensors (B, ...), ``<key>_is_pad`` (B, T), ``task`` a list of B."""
        # NumPy only: each of our threads would start torch's own threads, which would slow
        # training.
        rows = np.asarray(indices)
        begin, end = self._begin[rows, None], self._end[rows, None]
        wanted = {key: rows[:, None] + deltas for key, deltas in self._deltas.items()}
        # Indices outside the episode are clamped to its first or last frame.
        queries = {k: np.clip(at, begin, end - 1) for k, at in wanted.items()}
        # The order of keys is that of LeRobot's reader.
        arrays: dict[str, Any] = {}
        for key in self._video_keys:
            at = queries.get(key, rows)
            # LeRobot's reader drops a time axis of length one, but only from videos.
            arrays[key] = self._frames.read(key, at[:, 0] if at.shape[1:] == (1,) else at)
        for key, column in self._columns.items():
            arrays[key] = column.numpy()[queries.get(key, rows)]
        for key, at in wanted.items():
            arrays[f"{key}_is_pad"] = (at < begin) | (at >= end)
        batch: Batch = {key: torch.from_numpy(array) for key, array in arrays.items()}
        batch["task"] = [self._tasks[i] for i in arrays["task_index"].tolist()]
        return batch


def _kept(videos: VideoFrames, cache: Cache, limits: CacheLimits) -> Frames:
    """The frames of ``videos``, cached as given by ``cache``."""
    if not videos.keys:
        return videos
    size = sum(int(np.prod(videos.shape(key))) for key in videos.keys)
    if cache == "disk":
        return kept_on_disk(videos, limits)
    if cache == "memory" and size > limits.memory:
        raise GetiactionError(
            f"the decoded frames take {size / GIB:.1f} GiB, more than the limit of "
            f"{limits.memory / GIB:.1f} in memory; raise it, or use another cache than 'memory'"
        )
    if cache == "off" or size > limits.memory:
        return videos
    return held_in_memory(videos)


def why_not_gathered(dataset: LeRobotDataset) -> str | None:
    """Reason why ``dataset`` has to be read item by item, or None if it can be gathered."""
    meta: Any = dataset.meta
    if dataset.image_transforms is not None:
        return "image transforms differ from item to item"
    if meta.has_language_columns:
        return "it has language columns"
    if meta.image_keys or meta.depth_keys:
        return f"it stores images of {', '.join([*meta.image_keys, *meta.depth_keys])} in the table"
    if meta.video_keys and not dataset._return_uint8:
        return "its frames are requested as floats"
    odd = [k for k in dataset.hf_dataset.column_names if not _is_numeric(meta.features[k])]
    if odd:
        return f"columns that are not numbers: {', '.join(odd)}"
    return None


def as_arrays(
    dataset: LeRobotDataset,
    wanted: bool | Literal["auto"],
    cache: Cache,
    limits: CacheLimits | None = None,
) -> Dataset[Any]:
    """Return ``dataset`` as arrays if requested and possible, else unchanged.

    Raises:
        GetiactionError: it is required but impossible.
    """
    reason = "gather=False" if wanted is False else why_not_gathered(dataset)
    if reason is None:
        return GatheredDataset(dataset, cache, limits)
    if wanted is True:
        raise GetiactionError(f"the dataset cannot be held as arrays: {reason}")
    if cache in ("memory", "disk"):
        raise GetiactionError(f"the decoded frames cannot be kept, cache={cache!r}: {reason}")
    if wanted == "auto":
        logger.info("reading the dataset item by item: %s", reason)
    one_by_one: Dataset[Any] = dataset
    return one_by_one


def as_is(batch: Batch) -> Batch:
    """Collate function for batches already gathered by the dataset."""
    return batch


def collate_for(dataset: Dataset[Any]) -> Any:
    """The collate function for ``dataset``: none for gathered batches, else torch's default."""
    return as_is if isinstance(dataset, GatheredDataset) else default_collate


def _is_numeric(feature: dict[str, Any]) -> bool:
    return str(feature["dtype"]).startswith(NUMERIC)


def _as_item_dtype(values: Any) -> Tensor:
    """Convert a column to the dtype that ``torch.tensor`` gives to its Python numbers."""
    column = torch.as_tensor(values)
    if column.dtype == torch.bool:
        return column
    return column.to(torch.float32 if column.is_floating_point() else torch.int64)
