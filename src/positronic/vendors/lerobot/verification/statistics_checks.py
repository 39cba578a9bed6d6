"""Statistics checks: recorded normalisation statistics against those of the data.

The tolerances depend on the writer, and on the data that is left for comparison:

- Ours of vectors and PNG images are exact to float32's precision, as in a policy's normaliser.
- Ours of a video are of the frames before encoding, of which only the encoded ones are left.
  Encoding preserves the mean (a checkerboard of single pixels changes it by 5% of white) and
  removes detail, which lowers the standard deviation: hardly for camera images, by a third for
  coloured noise. Extremes and quantiles of a lossy image cannot be compared, only their order.
- LeRobot sums in float32 (its deviation is up to 2% off), takes quantiles from a histogram, and
  samples some pixels of some frames.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from getiaction.dataset_info import Statistics
from positronic.vendors.lerobot.dataset import statistics
from positronic.vendors.lerobot.dataset.fault import first_of
from positronic.vendors.lerobot.dataset.layout import one_line
from positronic.vendors.lerobot.dataset.statistics import MOMENTS, PixelCounts

EXACT = 1e-6  # of the largest value
SUMMED_MEAN, SUMMED_STD = 1e-3, 0.02  # of the largest value
ENCODED_MEAN, ENCODED_STD = 0.05, 0.02  # of white
ENCODED_LOSS = 0.45  # of the deviation
SAMPLED = 0.1  # of white
HISTOGRAM = 1e-3  # of the range

# Source of a camera's recorded statistics, relative to the stored frames.
Kind = Literal["same", "encoded", "sampled"]


def of_vectors(recorded: Statistics, values: NDArray[Any], *, ours: bool) -> str | None:
    """Return the fault of the recorded statistics of ``values`` ``(T, ...)``, or None."""
    return moments(recorded, values, ours=ours) or quantiles(recorded, values, ours=ours)


def moments(recorded: Statistics, values: NDArray[Any], *, ours: bool) -> str | None:
    """Return the fault of all statistics except quantiles, as `of_vectors`."""
    expected = statistics.of_vectors(values)
    return _differs(recorded, expected, _tolerances(expected, MOMENTS, ours=ours))


def quantiles(recorded: Statistics, values: NDArray[Any], *, ours: bool) -> str | None:
    """Return the fault of the quantiles, as `of_vectors`."""
    if not ours:
        rows = values.reshape(-1, values.shape[-1] if values.ndim > 1 else 1)
        return _quantiles_outside(recorded, rows)
    expected = statistics.of_vectors(values)
    return _differs(recorded, expected, _tolerances(expected, statistics.quantile_names()))


def of_images(recorded: Statistics, expected: Statistics, kind: Kind) -> str | None:
    """Return the fault of a camera's statistics; ``expected`` are those of the stored frames."""
    if kind == "same":
        return _differs(recorded, expected, dict.fromkeys(expected, EXACT))
    if kind == "encoded":
        lost = ENCODED_LOSS * expected["std"].ravel() / (1 - ENCODED_LOSS)
        close: dict[str, Any] = {"mean": ENCODED_MEAN, "std": ENCODED_STD + lost, "count": 0}
    else:
        close = {"mean": SAMPLED, "std": SAMPLED}
    return _differs(recorded, expected, close) or _check_order(recorded)


def of_camera(
    recorded: Statistics,
    episodes: Sequence[Statistics],
    counts: PixelCounts | None,
    *,
    ours: bool,
) -> str | None:
    """Return the fault of a camera's statistics in ``stats.json``, or None.

    Args:
        recorded: The statistics in ``stats.json``.
        episodes: Those of every episode, which determine all but the quantiles.
        counts: Counts of all pixels, which determine the quantiles; None if not recorded.
        ours: Whether they must be exact.
    """
    try:
        expected = pooled_of(episodes)
    except (KeyError, ValueError, IndexError) as error:
        return f"does not follow from the episodes' statistics: {one_line(error)}"
    found = _differs(recorded, expected, _tolerances(expected, MOMENTS, ours=ours))
    if found or not ours:
        return found
    names = statistics.quantile_names()
    if counts is not None:
        expected = statistics.of_camera(expected, counts)
    elif all(_same(episodes[0], each, names) for each in episodes):
        expected |= {name: episodes[0][name] for name in names if name in episodes[0]}
    else:
        return "its quantiles are the means of the episodes', not those of all pixels"
    return _differs(recorded, expected, _tolerances(expected, names))


def pooled_of(episodes: Sequence[Statistics]) -> Statistics:
    """Pooled statistics of a camera's episodes, except quantiles.

    Raises:
        KeyError, ValueError, IndexError: one of them is missing, or has another shape.
    """
    found: Statistics | None = None
    with np.errstate(all="ignore"):
        for each in episodes:
            found = statistics.pooled(found, each)
    if found is None:
        raise ValueError("there are no episodes")
    return found


def _same(one: Statistics, other: Statistics, names: Sequence[str]) -> bool:
    return all(
        name in one and name in other and np.array_equal(one[name], other[name]) for name in names
    )


def _tolerances(
    expected: Statistics, names: Iterable[str], *, ours: bool = True
) -> dict[str, NDArray[Any]]:
    scale = np.maximum(np.abs(expected["min"]), np.abs(expected["max"])).ravel()
    shares = {} if ours else {"mean": SUMMED_MEAN, "std": SUMMED_STD}
    found = {name: shares.get(name, EXACT) * scale + 1e-12 for name in names}
    return found | {"count": np.zeros(1)}


def _differs(
    recorded: Statistics, expected: Statistics, tolerances: Mapping[str, Any]
) -> str | None:
    for name, tolerance in tolerances.items():
        if name not in recorded:
            return f"{name} is missing"
        found, right = recorded[name].ravel(), np.ravel(expected[name])
        if found.shape != right.shape:
            return f"{name} has {found.size} values, expected {right.size}"
        wrong = ~(np.abs(found - right) <= tolerance)  # NaN is wrong
        if wrong.any():
            at, more = first_of(wrong)
            return f"{name}[{at}] is {found[at]:.6g}, the data's is {right[at]:.6g}{more}"
    return None


def _quantiles_outside(recorded: Statistics, values: NDArray[Any]) -> str | None:
    """Describe the first quantile that is not between its neighbouring samples."""
    ordered = np.sort(values.astype(np.float64), axis=0)
    count = len(ordered)
    margin = HISTOGRAM * (ordered[-1] - ordered[0]) + 1e-9 + EXACT * np.abs(ordered).max(axis=0)
    for name, q in zip(statistics.quantile_names(), statistics.QUANTILES, strict=True):
        if name in recorded and recorded[name].size == ordered.shape[1]:
            low = ordered[max(0, int(np.floor(q * count)) - 1)] - margin
            high = ordered[min(count - 1, int(np.ceil(q * count)))] + margin
            value = recorded[name].ravel()
            wrong = ~((low <= value) & (value <= high))
            if wrong.any():
                at, more = first_of(wrong)
                return (
                    f"{name}[{at}] is {value[at]:.6g}, expected"
                    f" {low[at]:.6g} to {high[at]:.6g}{more}"
                )
    return None


def _check_order(recorded: Statistics) -> str | None:
    names = [name for name in ("min", *statistics.quantile_names(), "max") if name in recorded]
    low: NDArray[Any] = np.zeros(1)
    for name in names:
        value = recorded[name].ravel()
        if not (low - EXACT <= value).all() or not (value <= 1 + EXACT).all():
            return f"{', '.join(names)} do not ascend from 0 to 1"
        low = value
    return None
