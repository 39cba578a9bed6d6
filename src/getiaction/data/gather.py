"""A LeRobot dataset held in memory, from which whole batches are gathered by indexing.

``LeRobotDataset`` builds one item in 2.5 to 5 ms, most of it spent on turning table rows into
tensors one by one; a small policy on a CPU would wait for data most of the time. Here the columns
are arrays, and a batch costs one indexing operation a key. What comes out equals, bit for bit and
key for key, what ``LeRobotDataset`` and torch's default collate give.
"""

import logging
from collections.abc import Sequence
from typing import Any, Literal

import torch
from lerobot.datasets import LeRobotDataset
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from getiaction.data.frames import CacheLimits, decode_videos, decoded_bytes, episodes_of, room_for
from getiaction.errors import GetiactionError

logger = logging.getLogger(__name__)

type Batch = dict[str, Any]

NUMERIC = ("float", "int", "uint", "bool")


class GatheredDataset(Dataset[dict[str, Any]]):
    """The rows of ``dataset`` as arrays; gathers batches in ``__getitems__``.

    Use it in a ``DataLoader`` with :func:`as_is` as ``collate_fn``: the batch is made already.

    Args:
        dataset: With ``return_uint8=True`` if it has videos, and its delta timestamps set.
        limits: Bounds for decoded camera frames.
    """

    def __init__(self, dataset: LeRobotDataset, limits: CacheLimits | None = None) -> None:
        limits = limits or CacheLimits()
        reason = why_not_gathered(dataset, limits)
        if reason is not None:
            raise ValueError(f"this dataset cannot be held as arrays: {reason}")
        self.dataset = dataset
        meta: Any = dataset.meta
        self._video_keys: list[str] = list(meta.video_keys)
        names = [k for k in dataset.hf_dataset.column_names if meta.features[k]["dtype"] != "image"]
        table = dataset.hf_dataset.select_columns(names).with_format("numpy")[:]
        self._columns: dict[str, Tensor] = {k: _as_item_dtype(table[k]) for k in names}
        self._deltas: dict[str, Tensor] = {
            key: torch.tensor(deltas)
            for key, deltas in (dataset.reader.delta_indices or {}).items()
        }
        self._tasks: list[str] = meta.tasks.index.tolist()
        self._begin, self._end = _episode_bounds(dataset)
        in_memory = decoded_bytes(dataset) <= limits.memory
        self._frames = decode_videos(
            dataset, self._columns["timestamp"], in_memory=in_memory, limits=limits
        )

    def __len__(self) -> int:
        return len(self._begin)

    def __getitem__(self, index: int) -> Batch:
        item: Batch = self.dataset[index]
        return item

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Gather one batch: tensors (B, ...), ``<key>_is_pad`` (B, T), ``task`` a list of B."""
        rows = torch.as_tensor(indices)
        begin, end = self._begin[rows, None], self._end[rows, None]
        wanted = {key: rows[:, None] + deltas for key, deltas in self._deltas.items()}
        padding = {f"{k}_is_pad": (at < begin) | (at >= end) for k, at in wanted.items()}
        # Outside its episode an index is moved to the episode's first or last frame.
        queries = {k: at.clamp(min=begin).clamp(max=end - 1) for k, at in wanted.items()}
        # The order of keys is that of LeRobot's reader.
        batch: Batch = {}
        for key in self._video_keys:
            at = queries.get(key, rows)
            # The reader drops a time axis of length one from videos, and from videos only.
            batch[key] = self._frames[key][at[:, 0] if at.shape[1:] == (1,) else at]
        for key, column in self._columns.items():
            batch[key] = column[queries.get(key, rows)]
        batch.update(padding)
        batch["task"] = [self._tasks[i] for i in batch["task_index"].tolist()]
        return batch


def why_not_gathered(dataset: LeRobotDataset, limits: CacheLimits) -> str | None:
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
    size = decoded_bytes(dataset)
    if not room_for(size, limits):
        return f"its decoded frames take {size / 2**30:.1f} GiB, more than there is room for"
    return None


def as_arrays(
    dataset: LeRobotDataset, wanted: bool | Literal["auto"], limits: CacheLimits
) -> Dataset[Any]:
    """Return ``dataset`` as arrays where that is wanted and possible, else as it is.

    Raises:
        GetiactionError: it is wanted without fail, and impossible.
    """
    reason = "gather=False" if wanted is False else why_not_gathered(dataset, limits)
    if reason is None:
        return GatheredDataset(dataset, limits)
    if wanted is True:
        raise GetiactionError(f"the dataset cannot be held as arrays: {reason}")
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


def _episode_bounds(dataset: LeRobotDataset) -> tuple[Tensor, Tensor]:
    """For each row, the first row of its episode and the row after its last: int64 (N,) each."""
    begins: list[Tensor] = []
    ends: list[Tensor] = []
    row = 0
    for episode in episodes_of(dataset):
        record = dataset.meta.episodes[episode]
        length = record["dataset_to_index"] - record["dataset_from_index"]
        begins.append(torch.full((length,), row))
        row += length
        ends.append(torch.full((length,), row))
    return torch.cat(begins), torch.cat(ends)
