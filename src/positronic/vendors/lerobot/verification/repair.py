"""Repair of statistics that other versions wrote: recomputed from rows and frames.

Until November 2026 ``meta/stats.json`` held the means of the episodes' quantiles for those of all
rows. The quantiles of numbers follow from the tables to the last bit. Those of cameras are of the
frames before they were encoded, which are gone; the decoded ones, by which training goes, are
counted in their place, and the provenance says so.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from foundation import storage
from foundation.errors import StorageError
from positronic.codec import Contract
from positronic.codec.contract import FILE_NAME, versions
from positronic.vendors.lerobot.conversion import durable
from positronic.vendors.lerobot.conversion.output import Output, state_of
from positronic.vendors.lerobot.conversion.provenance import NAME, Provenance
from positronic.vendors.lerobot.dataset import layout, totals
from positronic.vendors.lerobot.dataset.layout import Episode, Info
from positronic.vendors.lerobot.dataset.statistics import PixelCounts, Statistics
from positronic.vendors.lerobot.verification import pixels
from positronic.vendors.lerobot.verification.processes import number_of
from positronic.vendors.lerobot.verification.statistics_checks import pooled_of
from positronic.vendors.lerobot.verification.totals_checks import counts_in, pixels_of


@dataclass(frozen=True)
class Counted:
    """Pixel counts of a dataset, by camera.

    Attributes:
        counts: of all its cameras but those that measure distances.
        decoded: those that were counted now, from the frames that there are.
        moments: of these, as decoded.
    """

    counts: dict[str, PixelCounts]
    decoded: list[str]
    moments: dict[str, Statistics]


@dataclass(frozen=True)
class Repaired:
    """What was computed anew: numbers of features, and the cameras that were decoded for it."""

    features: int
    decoded: list[str]

    @property
    def words(self) -> str:
        """In words."""
        decoded = f", {', '.join(self.decoded)} decoded for it" if self.decoded else ""
        return f"{self.features} features{decoded}"


def counted(root: Path, workers: int | None) -> Counted:
    """Pixel counts of the dataset in ``root``: those it holds, and of other cameras, counted now.

    Raises:
        DatasetError: a frame cannot be decoded.
    """
    info = layout.read_info(root)
    counts = counts_in(root, info)
    missing = [key for key in pixels_of(info) if key not in counts]
    found = pixels.count(root, info, _episodes(root, info), missing, number_of(workers or None))
    return Counted(
        counts | {key: each.counts for key, each in found.items()},
        list(found),
        {key: each.result() for key, each in found.items()},
    )


def repair_statistics(dataset_root: str | Path, workers: int | None = None) -> Repaired:
    """Write the statistics of a dataset anew; its contract follows, its provenance notes it.

    All other files stay as they are. Readers find the old dataset or the new, whole.

    Raises:
        StorageError: an append to it is unfinished, or someone changed it meanwhile.
        DatasetError: its rows or frames cannot be read.
    """
    output = Output(dataset_root)
    output.settle()
    workplace = output.workplace()
    output.require_writable(workplace)
    with workplace.locked():
        if workplace.begun is not None and workplace.worth_keeping:
            raise StorageError(
                f"there is an unfinished conversion to {output}; finish it with --resume=True, or"
                f" give it up by `rm -r {workplace.directory}`"
            )
        workplace.clear()
        base = storage.fetch(output.uri)
        state = state_of(base)
        durable.link_tree(base, workplace.assembling)
        repaired = _rewrite(workplace.assembling, workers)
        durable.sync_tree(workplace.assembling)
        durable.rename(workplace.assembling, workplace.dataset)
        if state_of(storage.fetch(output.uri, only=output.decides)) != state:
            raise StorageError(f"{output} was changed by someone else meanwhile; repair it again")
        output.swap(workplace)
    return repaired


def _rewrite(root: Path, workers: int | None) -> Repaired:
    from lerobot.datasets.io_utils import write_stats

    info = layout.read_info(root)
    episodes = _episodes(root, info)
    found = counted(root, workers)
    moments = {key: _moments(episodes, key, found) for key in found.counts}
    frames = sum(episode.length for episode in episodes)
    stats = totals.of_dataset(root, info.features, frames, moments, found.counts)
    stats |= _of_depth(root, info)
    if (root / "meta" / FILE_NAME).is_file():
        Contract.load(root / "meta").with_statistics(stats).save(root / "meta")
    if (root / NAME).is_file():
        provenance = Provenance.load(root).counted(found.counts)
        provenance.repaired(_record(found.decoded)).save(root)
    write_stats(stats, root)
    return Repaired(len(stats), found.decoded)


def _moments(episodes: Sequence[Episode], key: str, found: Counted) -> Statistics:
    """Of a camera: those of its episodes, or of its decoded frames where these have none."""
    parts = [episode.stats[key] for episode in episodes if key in episode.stats]
    if len(parts) == len(episodes):
        try:
            return pooled_of(parts)
        except (KeyError, ValueError, IndexError):
            if key in found.moments:
                return found.moments[key]
            raise
    return found.moments[key]


def _of_depth(root: Path, info: Info) -> dict[str, Statistics]:
    """Those that are there of depth cameras, whose frames are no RGB pictures."""
    depth = [key for key in info.keys("video", "image") if layout.is_depth(info.features[key])]
    if not depth:
        return {}
    recorded = layout.read_stats(root)
    return {key: recorded[key] for key in depth if key in recorded}


def _episodes(root: Path, info: Info) -> list[Episode]:
    return [
        episode
        for table in layout.episode_tables(root)
        for episode in layout.read_episodes(root, table, info)
    ]


def _record(decoded: list[str]) -> dict[str, Any]:
    return {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "versions": versions(),
        "what": "statistics",
        "decoded": decoded,
    }
