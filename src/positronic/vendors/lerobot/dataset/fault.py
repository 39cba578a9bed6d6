"""Integrity error of a converted dataset: file, episode and description, in one line."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foundation.text import printable

REPAIR = "statistics"  # value of `verify --repair`


@dataclass(frozen=True)
class Fault:
    """One integrity error.

    Attributes:
        file: path relative to the dataset's root.
        text: what was found, and what was expected.
        episode: the ``episode_index`` it concerns, or None for the complete file.
        unreadable: the file cannot be read at all, so that further checks of it are skipped.
        mend: the value of `verify --repair` that repairs it, or None if it cannot.
        note: a note, not an error: LeRobot writes it so.
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
    """Return the position of the first true element, and the number of others as text."""
    positions = np.flatnonzero(wrong)
    others = len(positions) - 1
    return int(positions[0]), f" (and {others} more)" if others else ""


def listed(numbers: Iterable[int], limit: int = 5) -> str:
    """Return the first numbers as text: ``"3, 4, 5 (and 7 more)"``."""
    found = sorted(numbers)
    more = f" (and {len(found) - limit} more)" if len(found) > limit else ""
    return ", ".join(str(number) for number in found[:limit]) + more
