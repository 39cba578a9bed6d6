"""Episodes derived lazily from others: a function from an episode to named signals and values.

::

    def tool(episode):                       # a transform
        pose = episode["robot_state.ee_pose"]
        return {"position": map_values(pose, lambda v: v[:, :3]), "task": episode["task"]}

    DerivedDataset(LocalDataset(path), tool, keep=True)["..."]

The function is called when an item of the derived episode is first accessed. Transforms of signals
are lazy too, so nothing is read until a value is.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, override

import numpy as np
from numpy.typing import NDArray

from positronic.dataset.dataset import Dataset
from positronic.dataset.episode import Episode, EpisodeView
from positronic.dataset.signal import Indices, Signal, Times

if TYPE_CHECKING:
    from positronic.dataset.applied_edits import Edits

__all__ = [
    "DerivedDataset",
    "DerivedEpisode",
    "Transform",
    "concatenate",
    "map_images",
    "map_values",
    "rename",
    "select",
]

Transform = Callable[[Episode], Mapping[str, Any]]
"""Function from an episode to the signals and static values of the derived one, by name."""


class DerivedEpisode(EpisodeView):
    """The items that ``transform`` makes of ``source``; with ``keep`` also the source's others.

    An item made by the transform hides the source's item of that name. ``meta`` is the source's.
    """

    def __init__(self, source: Episode, transform: Transform, *, keep: bool = False) -> None:
        super().__init__(source)
        self._transform = transform
        self._keep = keep

    @cached_property
    def _made(self) -> Mapping[str, Any]:
        return self._transform(self.source)

    @cached_property
    @override
    def signals(self) -> Mapping[str, Signal]:
        kept = self._kept(self.source.signals)
        return kept | {k: v for k, v in self._made.items() if isinstance(v, Signal)}

    @cached_property
    @override
    def static(self) -> Mapping[str, Any]:
        kept = self._kept(self.source.static)
        return kept | {k: v for k, v in self._made.items() if not isinstance(v, Signal)}

    def _kept(self, items: Mapping[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in items.items() if k not in self._made} if self._keep else {}


class DerivedDataset(Dataset):
    """Every episode of ``source`` seen through ``transform``; see :class:`DerivedEpisode`."""

    def __init__(self, source: Dataset, transform: Transform, *, keep: bool = False) -> None:
        self.source = source
        self._transform = transform
        self._keep = keep

    def __len__(self) -> int:
        return len(self.source)

    @property
    @override
    def edits(self) -> "Edits | None":
        return self.source.edits

    @override
    def episode(self, index: int) -> DerivedEpisode:
        return DerivedEpisode(self.source.episode(index), self._transform, keep=self._keep)

    @override
    def prefetch(self, positions: Iterable[int]) -> None:
        self.source.prefetch(positions)


def select(*names: str) -> Transform:
    """Keep only the items of these names; KeyError for one that is missing."""
    return lambda episode: {name: episode[name] for name in names}


def rename(**names: str) -> Callable[[Episode], dict[str, Any]]:
    """Rename items, ``new="old"``; others are kept, a missing old name is ignored.

    For recordings of other versions, such as ``rename(**{"robot_commands.pose":
    "robot_command.pose"})``. ValueError if a new name is taken.
    """

    def renamed(episode: Episode) -> dict[str, Any]:
        new_of = {old: new for new, old in names.items()}
        items: dict[str, Any] = {}
        for name in episode:
            new = new_of.get(name, name)
            if new in items or (new != name and new in episode and new not in new_of):
                raise ValueError(f"cannot rename {name!r} to {new!r}: the episode has both")
            items[new] = episode[name]
        return items

    return renamed


def map_values(signal: Signal, function: Callable[[NDArray[Any]], NDArray[Any]]) -> Signal:
    """A numeric signal with mapped values at the same times.

    ``function`` gets values of any number of samples, ``(n, *shape)``, and returns ``(n, ...)``;
    it must treat samples independently, since it gets only those that are read.
    """
    return _Mapped(signal, function)


def map_images(
    signal: Signal, function: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
) -> Signal:
    """A video signal with ``function`` applied to each image as it is read."""
    return _MappedImages(signal, function)


def concatenate(*signals: Signal) -> Signal:
    """Scalars and vectors concatenated to one vector, with a sample whenever one of them has one.

    It starts when all have a value.
    """
    return _Concatenated(signals)


class _Mapped(Signal):
    def __init__(self, source: Signal, function: Callable[..., Any]) -> None:
        self._source = source
        self._function = function

    def __len__(self) -> int:
        return len(self._source)

    def _timestamp_at(self, index: int) -> int:
        return self._source.start_ts if index == 0 else self._source.last_ts

    def timestamps(self) -> Times:
        return self._source.timestamps()

    def take(self, indices: Indices) -> Any:
        return np.asarray(self._function(self._source.take(indices)))

    @cached_property
    def _example(self) -> NDArray[Any]:
        if len(self) == 0:
            raise ValueError("the signal is empty: its dtype and shape are not known")
        return np.asarray(self.take(np.zeros(1, dtype=np.int64))[0])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._example.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self._example.shape


class _MappedImages(_Mapped):
    kind: Literal["numeric", "video"] = "video"

    def take(self, indices: Indices) -> Any:
        return _LazyImages(self._source.take(indices), self._function)


class _LazyImages(Sequence[NDArray[np.uint8]]):
    def __init__(self, images: Any, function: Callable[..., Any]) -> None:
        self._images = images
        self._function = function

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: Any) -> Any:
        chosen = self._images[index]
        if isinstance(index, int | np.integer):
            return self._function(chosen)
        return _LazyImages(chosen, self._function)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return map(self._function, self._images)


class _Concatenated(Signal):
    def __init__(self, signals: tuple[Signal, ...]) -> None:
        if not signals:
            raise ValueError("nothing to concatenate")
        self._signals = signals

    def __len__(self) -> int:
        return len(self.timestamps())

    def timestamps(self) -> Times:
        return self._timestamps

    @cached_property
    def _timestamps(self) -> Times:
        every: Times = np.unique(np.concatenate([s.timestamps() for s in self._signals]))
        return every[every >= max(s.start_ts for s in self._signals)]

    def take(self, indices: Indices) -> NDArray[Any]:
        times = self._timestamps[indices]
        parts = [np.asarray(s.take(s.search(times))) for s in self._signals]
        return np.concatenate([part.reshape(len(times), -1) for part in parts], axis=1)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.result_type(*(s.dtype for s in self._signals)))

    @property
    def shape(self) -> tuple[int, ...]:
        return (sum(int(np.prod(s.shape)) for s in self._signals),)
