"""GatheredDataset: a LeRobot dataset as arrays, from which whole batches are gathered by indexing.

``LeRobotDataset`` builds one item in 2.5 to 12 ms, half of it spent on turning table rows into
tensors one by one. Here the columns are arrays, a batch costs one indexing operation a key, and
frames are decoded a batch at a time, or are there already. What comes out equals, bit for bit and
key for key, what ``LeRobotDataset`` and torch's default collate give.
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

    Use it in a ``DataLoader`` with :func:`as_is` as ``collate_fn``: the batch is made already.

    Args:
        dataset: With ``return_uint8=True`` if it has videos, and its delta timestamps set.
        cache: Where decoded frames are kept; see :class:`getiaction.data.DataModule`.
        limits: Bounds for them.

    Raises:
        ValueError: the dataset cannot be held as arrays.
        GetiactionError: its videos cannot be decoded, or its frames not be kept as asked.
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
        # Tensors, because worker processes share those.
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
        """Whether batches take so long to make that it is worth doing ahead, in threads."""
        return self._frames.decodes

    def __getitem__(self, index: int) -> Batch:
        item: Batch = self.dataset[index]
        return item

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Gather one batch: tensors (B, ...), ``<key>_is_pad`` (B, T), ``task`` a list of B."""
        # NumPy throughout: torch's own threads, begun by each of ours, would hold up training.
        rows = np.asarray(indices)
        begin, end = self._begin[rows, None], self._end[rows, None]
        wanted = {key: rows[:, None] + deltas for key, deltas in self._deltas.items()}
        # Outside its episode an index is moved to the episode's first or last frame.
        queries = {k: np.clip(at, begin, end - 1) for k, at in wanted.items()}
        # The order of keys is that of LeRobot's reader.
        arrays: dict[str, Any] = {}
        for key in self._video_keys:
            at = queries.get(key, rows)
            # The reader drops a time axis of length one from videos, and from videos only.
            arrays[key] = self._frames.read(key, at[:, 0] if at.shape[1:] == (1,) else at)
        for key, column in self._columns.items():
            arrays[key] = column.numpy()[queries.get(key, rows)]
        for key, at in wanted.items():
            arrays[f"{key}_is_pad"] = (at < begin) | (at >= end)
        batch: Batch = {key: torch.from_numpy(array) for key, array in arrays.items()}
        batch["task"] = [self._tasks[i] for i in arrays["task_index"].tolist()]
        return batch


def _kept(videos: VideoFrames, cache: Cache, limits: CacheLimits) -> Frames:
    """The frames of ``videos``, kept as asked."""
    if not videos.keys:
        return videos
    size = sum(int(np.prod(videos.shape(key))) for key in videos.keys)
    if cache == "disk":
        return kept_on_disk(videos, limits)
    if cache == "memory" and size > limits.memory:
        raise GetiactionError(
            f"the decoded frames take {size / GIB:.1f} GiB, and {limits.memory / GIB:.1f} may be "
            "kept in memory; raise the bound, or use another cache than 'memory'"
        )
    if cache == "off" or size > limits.memory:
        return videos
    return held_in_memory(videos)


def why_not_gathered(dataset: LeRobotDataset) -> str | None:
    """Say why ``dataset`` has to be read item by item, or None if it can be gathered."""
    meta: Any = dataset.meta
    if dataset.image_transforms is not None:
        return "image transforms differ from item to item"
    if meta.has_language_columns:
        return "it has language columns"
    if meta.image_keys or meta.depth_keys:
        return f"it keeps images of {', '.join([*meta.image_keys, *meta.depth_keys])} in the table"
    if meta.video_keys and not dataset._return_uint8:
        return "its frames are wanted as floats"
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
    """Return ``dataset`` as arrays where that is wanted and possible, else as it is.

    Raises:
        GetiactionError: it is wanted without fail, and impossible.
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
    """Collate a batch that the dataset gathered already."""
    return batch


def collate_for(dataset: Dataset[Any]) -> Any:
    """The collate function that fits ``dataset``: gathered batches pass, others use torch's."""
    return as_is if isinstance(dataset, GatheredDataset) else default_collate


def _is_numeric(feature: dict[str, Any]) -> bool:
    return str(feature["dtype"]).startswith(NUMERIC)


def _as_item_dtype(values: Any) -> Tensor:
    """Give a column the dtype that ``torch.tensor`` gives to Python numbers taken from it."""
    column = torch.as_tensor(values)
    if column.dtype == torch.bool:
        return column
    return column.to(torch.float32 if column.is_floating_point() else torch.int64)
