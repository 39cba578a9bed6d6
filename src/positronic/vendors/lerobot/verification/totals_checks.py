"""Checks of ``stats.json`` against the statistics of all rows and pixels."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundation.text import printable
from getiaction.dataset_info import Statistics
from positronic.errors import DatasetError
from positronic.vendors.lerobot.conversion.provenance import Provenance
from positronic.vendors.lerobot.dataset import layout, totals
from positronic.vendors.lerobot.dataset.fault import REPAIR, Fault
from positronic.vendors.lerobot.dataset.layout import COUNTERS, Episode, Info, size_of
from positronic.vendors.lerobot.dataset.statistics import PixelCounts
from positronic.vendors.lerobot.verification import statistics_checks


@dataclass(frozen=True)
class TotalsCheck:
    """Check of a numeric feature over all rows of the dataset.

    Attributes:
        root: directory of the dataset.
        name: name of the feature.
        feature: its entry in ``info.json``.
        frames: number of rows of the dataset.
        recorded: its statistics in ``stats.json``.
        ours: whether they must be exact.
    """

    root: Path
    name: str
    feature: Mapping[str, Any]
    frames: int
    recorded: Statistics
    ours: bool

    def run(self) -> list[Fault]:
        """Read all rows and return faults."""
        try:
            rows = totals.rows_of(self.root, self.name, self.feature, self.frames)
        except DatasetError:
            return []  # reported by the row checks
        name = printable(self.name)
        if wrong := statistics_checks.moments(self.recorded, rows, ours=self.ours):
            return [Fault(layout.STATS, f"{name}: {wrong}", mend=REPAIR)]
        wrong = statistics_checks.quantiles(self.recorded, rows, ours=self.ours)
        if wrong is None or (not self.ours and self.name in COUNTERS):
            return []
        return [Fault(layout.STATS, f"{name}: {wrong}", mend=REPAIR, note=not self.ours)]


def checks_of(
    root: Path, info: Info, frames: int, recorded: Mapping[str, Statistics], *, ours: bool
) -> Iterator[TotalsCheck]:
    """Yield a check of every numeric feature with statistics in ``stats.json``."""
    for name, feature in info.features.items():
        if feature["dtype"] not in ("video", "image", *layout.TEXT) and name in recorded:
            yield TotalsCheck(root, name, feature, frames, recorded[name], ours)


def camera_faults(
    root: Path,
    info: Info,
    episodes: Sequence[Episode],
    recorded: Mapping[str, Statistics],
    *,
    ours: bool,
) -> Iterator[Fault]:
    """Faults of the cameras' statistics in ``stats.json``."""
    counts = counts_in(root, info) if ours else {}
    for key in info.keys("video", "image"):
        parts = [episode.stats[key] for episode in episodes if key in episode.stats]
        if key not in recorded or len(parts) != len(episodes):
            continue  # reported by other checks
        wrong = statistics_checks.of_camera(recorded[key], parts, counts.get(key), ours=ours)
        if wrong:
            yield Fault(layout.STATS, f"{printable(key)}: {wrong}", mend=REPAIR)


def counts_in(root: Path, info: Info) -> dict[str, PixelCounts]:
    """Recorded pixel counts by camera, of cameras whose total number of pixels matches."""
    try:
        provenance = Provenance.load(root)
    except (OSError, DatasetError):
        return {}
    return provenance.pixel_counts(pixels_of(info))


def pixels_of(info: Info) -> dict[str, int]:
    """Number of pixels per channel in all frames, by RGB camera."""
    found = {}
    for key in info.keys("video", "image"):
        if not layout.is_depth(info.features[key]):
            height, width = size_of(info.features[key])
            found[key] = info.said.total_frames * height * width
    return found
