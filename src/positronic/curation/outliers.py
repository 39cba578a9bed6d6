"""Episodes that stand out from the others of their dataset, with the reasons in words."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from positronic.curation.scores import POINTS, Scores

# A measure counts as usual within so many robust standard deviations of the median, and tells
# nothing at all within the second number of them.
USUAL, NOTABLE = 5.0, 2.0
# The median absolute deviation of a normal distribution is so much smaller than its standard one.
MAD = 1.4826
# Standard deviations of the largest deviation that counts, and of what is known without comparison.
MOST, KNOWN = 100.0, 50.0
# Fewer episodes have no usual value.
FEWEST = 4
# Difference of two paths, as a share of the dataset's extent, below which they are the same.
DUPLICATE = 1e-3
# So many others with nearly the same first or last value make it usual; or a twentieth of all.
NEIGHBOURS = 3
# Smallest spread of first and last values, as a share of the range in the dataset.
END_SPREAD = 0.02

type Side = Literal["high", "low", "both"]


@dataclass(frozen=True)
class Measure:
    """How to judge a measure.

    Attributes:
        spread: smallest standard deviation, so that what hardly varies is no outlier for nothing;
            with ``relative``, as a share of the median.
        side: which deviations are bad.
        words: the reason, with ``{value}``, ``{usual}`` and ``{of}`` (the signal).
        relative: see ``spread``.
    """

    spread: float
    side: Side
    words: str
    relative: bool = False


MEASURES: Mapping[str, Measure] = {
    "duration_s": Measure(0.1, "both", "lasts {value:.1f} s, usually {usual:.1f}", relative=True),
    "gap": Measure(1.0, "high", "{of} has a gap of {value:.0f} samples, usually {usual:.0f}"),
    "idle": Measure(0.05, "high", "the robot stands still for {value:.0%}, usually {usual:.0%}"),
    "path": Measure(
        0.1, "high", "the path of {of} is {value:.2f} long, usually {usual:.2f}", relative=True
    ),
    "speed": Measure(
        0.1, "high", "{of} moves at {value:.2f} per second, usually {usual:.2f}", relative=True
    ),
    "jerk": Measure(
        0.5, "high", "{of} is jerky: log dimensionless jerk {value:.1f}, not {usual:.1f}"
    ),
    "saturation": Measure(
        0.05, "high", "{of} rests at its limit for {value:.0%}, usually {usual:.0%}"
    ),
    "lag": Measure(0.03, "both", "the robot follows {of} after {value:.2f} s, usually {usual:.2f}"),
    "offset": Measure(
        0.25,
        "high",
        "{of} is {value:.3f} away from where the robot goes, usually {usual:.3f}",
        relative=True,
    ),
    "turn": Measure(1.0, "high", "{of} is turned by {value:.0f} degrees, usually {usual:.0f}"),
    "agreement": Measure(
        0.1, "low", "the grip does not follow {of}: correlation {value:.2f}, usually {usual:.2f}"
    ),
    "frozen": Measure(0.03, "high", "{of} is frozen for {value:.0%}, usually {usual:.0%}"),
    "black": Measure(0.02, "high", "{of} is black for {value:.0%}, usually {usual:.0%}"),
    "sharpness": Measure(0.3, "low", "{of} is blurred: sharpness {value:.1f}, usually {usual:.1f}"),
}


@dataclass(frozen=True)
class Reason:
    """One way in which an episode stands out.

    Attributes:
        measure: its name, such as ``lag.robot_commands.pose``.
        deviation: from the median, in robust standard deviations.
        words: what is unusual, for a person.
    """

    measure: str
    deviation: float
    words: str


@dataclass(frozen=True)
class Outlier:
    """An episode and what is unusual in it, the strongest reason first."""

    scores: Scores
    reasons: tuple[Reason, ...]

    @property
    def stands_out(self) -> bool:
        """Whether the strongest reason is beyond what is usual."""
        return bool(self.reasons) and self.reasons[0].deviation > USUAL

    @property
    def why(self) -> str:
        """The reasons beyond what is usual, or the strongest one, in words."""
        beyond = [reason for reason in self.reasons if reason.deviation > USUAL]
        # Where it begins and ends says less of the cause than the other measures do.
        beyond.sort(key=lambda reason: reason.measure.startswith(("starts.", "ends.")))
        return "; ".join(reason.words for reason in beyond or self.reasons[:1])

    @property
    def score(self) -> float:
        """Deviation of the strongest reason, and a little for each of the others."""
        return sum(reason.deviation * 0.1**i for i, reason in enumerate(self.reasons))


def outliers(episodes: Sequence[Scores]) -> list[Outlier]:
    """All episodes, those that stand out most first; ties stay in their order."""
    found: list[list[Reason]] = [[] for _ in episodes]
    for index, scores in enumerate(episodes):
        if scores.error is not None:
            found[index].append(Reason("error", MOST, scores.error))
        if scores.failed:
            found[index].append(Reason("eval.success", KNOWN, "it failed: eval.success is False"))
    read = [(i, scores) for i, scores in enumerate(episodes) if scores.error is None]
    if len(read) >= FEWEST:
        scored = [scores for _, scores in read]
        for judge in (_by_measures, _by_ends, _by_views, _by_duplicates):
            for position, reason in judge(scored):
                found[read[position][0]].append(reason)
    judged = [
        Outlier(scores, tuple(sorted(reasons, key=lambda reason: -reason.deviation)))
        for scores, reasons in zip(episodes, found, strict=True)
    ]
    return sorted(judged, key=lambda outlier: -outlier.score)


def _by_measures(scored: Sequence[Scores]) -> Iterator[tuple[int, Reason]]:
    for name in dict.fromkeys(name for scores in scored for name in scores.values):
        kind, _, of = name.partition(".")
        measure = MEASURES.get(kind)
        if measure is None:
            continue
        values = np.array([scores.values.get(name, math.nan) for scores in scored])
        if np.isfinite(values).sum() < FEWEST:
            continue
        usual = float(np.nanmedian(values))
        least = measure.spread * (abs(usual) if measure.relative else 1.0)
        spread = max(MAD * float(np.nanmedian(np.abs(values - usual))), least, 1e-9)
        for index, value in enumerate(values):
            away = (value - usual) / spread
            away = abs(away) if measure.side == "both" else -away if measure.side == "low" else away
            if away > NOTABLE:  # not where it is NaN
                words = measure.words.format(value=value, usual=usual, of=of)
                yield index, Reason(name, min(float(away), MOST), words)


def _by_ends(scored: Sequence[Scores]) -> Iterator[tuple[int, Reason]]:
    """Starts and ends far from the others, also of positions relative to one another."""
    for which, words in (("starts", "it begins"), ("ends", "it ends")):
        for name in dict.fromkeys(n for scores in scored for n in getattr(scores, which)):
            ends = [getattr(scores, which).get(name) for scores in scored]
            sizes = {len(end) for end in ends if end is not None}
            if len(sizes) != 1 or sum(end is not None for end in ends) < FEWEST:
                continue
            (size,) = sizes
            table = np.array([end or [math.nan] * size for end in ends])
            extent = _extent(scored, name, size)
            if name.endswith(("pose", "poses")) and size % 7 == 0:
                table, extent = _positions(table, extent)
            for index, away in _far(table, extent):
                yield index, Reason(f"{which}.{name}", away, f"{words} unlike the others ({name})")


def _positions(
    table: NDArray[np.float64], extent: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions of poses ``(N, 7 k)``, and their differences; signs of rotations say nothing."""
    at = np.arange(table.shape[1]).reshape(-1, 7)[:, :3]
    columns = [table[:, places] for places in at]
    extents = [extent[places] for places in at]
    for first in range(len(at)):
        for second in range(first):
            columns.append(table[:, at[first]] - table[:, at[second]])
            extents.append(extent[at[first]])
    return np.concatenate(columns, axis=1), np.concatenate(extents)


def _extent(scored: Sequence[Scores], name: str, size: int) -> NDArray[np.float64]:
    """Range of each element in the whole dataset."""
    ranges = [scores.ranges.get(name) for scores in scored]
    known = np.array([r for r in ranges if r is not None and len(r) == 2 * size])
    if not known.size:
        return np.zeros(size)
    found: NDArray[np.float64] = known[:, size:].max(axis=0) - known[:, :size].min(axis=0)
    return found


def _far(table: NDArray[np.float64], extent: NDArray[np.float64]) -> Iterator[tuple[int, float]]:
    """Rows with an element far from those of the others; NaN is near."""
    usual = np.nanmedian(table, axis=0)
    spread = MAD * np.nanmedian(np.abs(table - usual), axis=0)
    spread = np.maximum(np.maximum(spread, END_SPREAD * extent), 1e-9)
    away = np.stack([_from_others(column) for column in table.T], axis=1)
    worst = np.nan_to_num(away / spread).max(axis=1)
    for index, away in enumerate(worst):
        if away > NOTABLE:
            yield index, min(float(away), MOST)


def _from_others(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of each value from its neighbours, so that a group of some episodes is usual."""
    order = np.argsort(values)
    placed, count = values[order], len(values)
    near = min(max(NEIGHBOURS, count // 20), count - 1)
    found = np.full(count, np.inf)
    # The nearest few lie on either side: take the best split of them.
    for before in range(near + 1):
        low, high = np.arange(count) - before, np.arange(count) + near - before
        fits = (low >= 0) & (high < count)
        low, high = np.clip(low, 0, count - 1), np.clip(high, 0, count - 1)
        far = np.maximum(placed - placed[low], placed[high] - placed)
        found[order] = np.where(fits, np.minimum(found[order], far), found[order])
    return found


def _by_views(scored: Sequence[Scores]) -> Iterator[tuple[int, Reason]]:
    """Cameras that see something else than in the other episodes."""
    for name in dict.fromkeys(n for scores in scored for n in scores.views):
        rows = [(i, scores.views[name]) for i, scores in enumerate(scored) if name in scores.views]
        if len(rows) < FEWEST:
            continue
        views = np.array([view for _, view in rows])
        away = np.abs(views - np.median(views, axis=0)).mean(axis=1)
        usual = float(np.median(away))
        spread = max(MAD * float(np.median(np.abs(away - usual))), 2.0)
        for (index, _), value in zip(rows, away, strict=True):
            if (deviation := (value - usual) / spread) > NOTABLE:
                words = f"{name} sees something else: it was moved, or the scene was"
                yield index, Reason(f"view.{name}", min(float(deviation), MOST), words)


def _by_duplicates(scored: Sequence[Scores]) -> Iterator[tuple[int, Reason]]:
    """Paths that are those of an earlier episode."""
    sizes = [len(scores.path) for scores in scored]
    size = max(set(sizes), key=sizes.count)
    rows = [i for i in range(len(scored)) if sizes[i] == size and size % POINTS == 0]
    paths = np.array([scored[i].path for i in rows])
    if not paths.size:
        return
    extent = float(np.ptp(paths.reshape(-1, size // POINTS), axis=0).max())
    if extent <= 0:
        return
    for later in range(1, len(rows)):
        away = np.abs(paths[:later] - paths[later]).max(axis=1)
        first = int(np.argmin(away))
        if away[first] < DUPLICATE * extent:
            other = scored[rows[first]].source
            yield rows[later], Reason("duplicate", KNOWN, f"it moves exactly as {other}")
