"""Dataset: episodes in order."""

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, overload, override

import numpy as np
from numpy.typing import NDArray

from positronic.dataset.episode import Episode

if TYPE_CHECKING:
    from positronic.dataset.applied_edits import Edits


class Dataset(Sequence[Episode]):
    """Episodes by position. Slices and index lists give lazy datasets.

    A subclass provides ``__len__`` and ``episode``.
    """

    @property
    def edits(self) -> "Edits | None":
        """The edit logs that were applied on opening; None if there are none."""
        return None

    @abstractmethod
    def episode(self, index: int) -> Episode:
        """The episode at a position in ``0 .. len - 1``."""

    def prefetch(self, positions: Iterable[int]) -> None:
        """Fetch the small files of these episodes (static values, meta), many at once."""

    @overload
    def __getitem__(self, index: int) -> Episode: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | NDArray[Any]) -> "Dataset": ...

    def __getitem__(self, index: Any) -> Any:
        """An episode, or a dataset for a slice or a list of positions; IndexError out of range."""
        if isinstance(index, slice):
            return Subset(self, range(*index.indices(len(self))))
        if isinstance(index, int | np.integer) and not isinstance(index, bool):
            return self.episode(self._position(int(index)))
        array = np.asarray(index)
        if array.ndim != 1 or not (array.size == 0 or np.issubdtype(array.dtype, np.integer)):
            raise TypeError(f"a dataset is indexed by integers, got {index!r}")
        return Subset(self, [self._position(int(i)) for i in array])

    def _position(self, index: int) -> int:
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"episode {index} of a dataset of {len(self)} episodes")
        return position

    def __add__(self, other: "Dataset") -> "ConcatDataset":
        """Concatenation of the two datasets."""
        return ConcatDataset(self, other)


class Subset(Dataset):
    """Chosen episodes of a dataset."""

    def __init__(self, source: Dataset, positions: Sequence[int]) -> None:
        self._source = source
        self._positions = positions

    def __len__(self) -> int:
        return len(self._positions)

    @property
    @override
    def edits(self) -> "Edits | None":
        return self._source.edits

    @override
    def episode(self, index: int) -> Episode:
        return self._source.episode(self._positions[index])

    @override
    def prefetch(self, positions: Iterable[int]) -> None:
        self._source.prefetch(self._positions[i] for i in positions)


class ConcatDataset(Dataset):
    """Concatenation of several datasets."""

    def __init__(self, *parts: Dataset) -> None:
        self.parts = parts
        self._ends = list(accumulate(len(part) for part in parts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @property
    @override
    def edits(self) -> "Edits | None":
        from positronic.dataset.applied_edits import Edits  # only where there are any: pydantic

        return Edits.together(part.edits for part in self.parts)

    @override
    def episode(self, index: int) -> Episode:
        part, position = self._locate(index)
        return self.parts[part].episode(position)

    @override
    def prefetch(self, positions: Iterable[int]) -> None:
        inner: list[list[int]] = [[] for _ in self.parts]
        for index in positions:
            part, position = self._locate(index)
            inner[part].append(position)
        for part, chosen in enumerate(inner):
            self.parts[part].prefetch(chosen)

    def _locate(self, index: int) -> tuple[int, int]:
        part = bisect_right(self._ends, index)
        return part, index - (self._ends[part - 1] if part else 0)
