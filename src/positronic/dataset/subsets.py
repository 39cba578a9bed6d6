"""Select episodes: by static values, a random share, or a training and validation split.

No signal is read; selecting by static values reads those, the rest reads nothing.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from foundation.errors import UsageError
from positronic.dataset.dataset import Dataset
from positronic.errors import DatasetError, EpisodeError

__all__ = ["share_of", "split", "where"]

SHOWN = 8  # values listed in an error message, to keep it readable


def where(dataset: Dataset, wanted: Mapping[str, Any]) -> Dataset:
    """Select the episodes whose static values match all of ``wanted``, in order.

    A list matches any of its members (or that very list), None a missing value. A number also
    matches its text, as simulators record ``"1"``. An episode whose static values cannot be read is
    kept, so that the error is raised when it is used.

    Raises:
        DatasetError: no episode matches; lists the recorded values.
    """
    static = described(dataset)
    kept = list(range(len(dataset)))
    for name, value in wanted.items():
        found = [None if values is None else values.get(name) for values in map(static.get, kept)]
        chosen = [
            i
            for i, recorded in zip(kept, found, strict=True)
            if static[i] is None or _matches(recorded, value)
        ]
        if all(static[i] is None for i in chosen):
            raise DatasetError(
                f"no episode has {name}={value!r}{_filters_before(wanted, name)}; "
                f"{_recorded_values(name, found)}"
            )
        kept = chosen
    return dataset[kept]


def described(dataset: Dataset) -> dict[int, Mapping[str, Any] | None]:
    """Static values of all episodes by position; None for an episode that cannot be read."""
    dataset.prefetch(range(len(dataset)))
    found: dict[int, Mapping[str, Any] | None] = {}
    for position in range(len(dataset)):
        try:
            found[position] = dataset[position].static
        except EpisodeError:
            found[position] = None
    return found


def _matches(recorded: Any, wanted: Any) -> bool:
    if isinstance(wanted, list | tuple) and recorded != list(wanted):
        return any(_matches(recorded, member) for member in wanted)
    if isinstance(recorded, bool) != isinstance(wanted, bool):
        return False  # True == 1 in Python
    if isinstance(recorded, str) and isinstance(wanted, int | float):
        return recorded == str(wanted)
    return bool(recorded == wanted)


def _filters_before(wanted: Mapping[str, Any], name: str) -> str:
    before = [f"{n}={wanted[n]!r}" for n in wanted]
    before = before[: list(wanted).index(name)]
    return f" among those with {', '.join(before)}" if before else ""


def _recorded_values(name: str, found: Iterable[Any]) -> str:
    counted = Counter(repr(value) for value in found if value is not None)
    if not counted:
        return f"none of them has a static value {name!r}"
    listed = [f"{value} ({n})" for value, n in counted.most_common(SHOWN)]
    more = f" and {len(counted) - SHOWN} more" if len(counted) > SHOWN else ""
    return f"its values are {', '.join(listed)}{more}"


def share_of(dataset: Dataset, share: float, seed: int) -> Dataset:
    """A random share of the episodes, at least one, in their order.

    With the same seed a larger share contains a smaller one. UsageError unless 0 < share <= 1.
    """
    if not 0 < share <= 1:
        raise UsageError(f"share={share}: expected more than 0 and at most 1")
    count = max(1, round(len(dataset) * share))
    return dataset[sorted(_shuffled(dataset, seed)[:count])]


def split(dataset: Dataset, val_share: float, seed: int) -> tuple[Dataset, Dataset]:
    """Training and validation episodes: together all, none in both, each in their order.

    At least one episode goes to each. UsageError unless 0 < val_share < 1; DatasetError when there
    are fewer than two episodes.
    """
    if not 0 < val_share < 1:
        raise UsageError(f"val_share={val_share}: expected more than 0 and less than 1")
    if len(dataset) < 2:
        raise DatasetError("one episode cannot be split into training and validation; record more")
    count = min(max(1, round(len(dataset) * val_share)), len(dataset) - 1)
    order = _shuffled(dataset, seed)
    return dataset[sorted(order[count:])], dataset[sorted(order[:count])]


def _shuffled(dataset: Dataset, seed: int) -> list[int]:
    return [int(i) for i in np.random.default_rng(seed).permutation(len(dataset))]
