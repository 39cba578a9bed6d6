"""Fault of a converted dataset: file, episode and what is wrong, in one line."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foundation.text import printable

REPAIR = "statistics"  # what `verify --repair` mends


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        file: of the dataset, relative to its root.
        text: what was found, and what was expected.
        episode: the ``episode_index`` it concerns, or None for the whole file.
        unreadable: nothing of the file can be used, so that nothing more is said of it.
        mend: what `verify --repair` has to be given to mend it, or None where that cannot.
        note: it is as LeRobot writes it, and to be known all the same.
    """

    file: str
    text: str
    episode: int | None = None
    unreadable: bool = False
    mend: str | None = None
    note: bool = False

    def __str__(self) -> str:
        file = printable(self.file)
        where = file if self.episode is None else f"{file}: episode {self.episode}"
        return f"{where}: {self.text}"


def first_of(wrong: NDArray[np.bool_]) -> tuple[int, str]:
    """Position of the first true element, and how many others there are, in words."""
    positions = np.flatnonzero(wrong)
    others = len(positions) - 1
    return int(positions[0]), f" (and {others} more)" if others else ""


def listed(numbers: Iterable[int], limit: int = 5) -> str:
    """Some numbers in words: ``"3, 4, 5 (and 7 more)"``."""
    found = sorted(numbers)
    more = f" (and {len(found) - limit} more)" if len(found) > limit else ""
    return ", ".join(str(number) for number in found[:limit]) + more
