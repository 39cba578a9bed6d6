"""Repair of statistics written by other versions: recomputed from rows and frames.

Until November 2026 ``meta/stats.json`` had the means of the episodes' quantiles instead of those of
all rows. Quantiles of numeric features are recomputed exactly from the tables. Those of cameras
were of the frames before encoding, which no longer exist; instead the decoded frames, on which
policies are trained, are counted, and the provenance records that.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation import storage
from foundation.documents import inside
from foundation.errors import StorageError
from foundation.progress import bar
from foundation.tables import open_table
from positronic.codec import Contract
from positronic.codec.contract import FILE_NAME, versions
from positronic.errors import DatasetError
from positronic.vendors.lerobot.conversion import durable
from positronic.vendors.lerobot.conversion.output import Output, state_of
from positronic.vendors.lerobot.conversion.provenance import NAME, Provenance
from positronic.vendors.lerobot.dataset import layout, totals
from positronic.vendors.lerobot.dataset.layout import Episode, Info, one_line, size_of
from positronic.vendors.lerobot.dataset.statistics import ImageStatistics, PixelCounts, Statistics
from positronic.vendors.lerobot.verification.picture_checks import UNDECODABLE, picture
from positronic.vendors.lerobot.verification.processes import number_of, processes
from positronic.vendors.lerobot.verification.statistics_checks import pooled_of
from positronic.vendors.lerobot.verification.totals_checks import counts_in, pixels_of
from positronic.vendors.lerobot.verification.video_checks import broken, frames_of


@dataclass(frozen=True)
class _Counting:
    """The frames of one camera in one episode."""

    root: Path
    key: str
    episode: Episode
    fps: float
    size: tuple[int, int] | None  # of images in the table; None for a video

    def run(self) -> tuple[str, ImageStatistics]:
        counted = ImageStatistics()
        file = self.episode.data if self.size else self.episode.videos[self.key].file
        try:
            for image in self._pictures(self.size) if self.size else self._frames():
                counted.add(image)
        except self._faults() as error:
            raise DatasetError(
                f"{file}: episode {self.episode.index}: {self.key} cannot be decoded:"
                f" {one_line(error)}; run verify"
            ) from error
        if counted.frames != self.episode.length:
            raise DatasetError(
                f"{file}: episode {self.episode.index}: {self.key} has {counted.frames} frames,"
                f" expected {self.episode.length}; run verify"
            )
        return self.key, counted

    def _faults(self) -> tuple[type[Exception], ...]:
        return UNDECODABLE if self.size else broken()

    def _frames(self) -> Iterator[NDArray[np.uint8]]:
        for frame in frames_of(self.root, self.key, self.episode, self.fps):
            yield frame.to_ndarray(format="rgb24")

    def _pictures(self, size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
        with open_table(inside(self.root, self.episode.data)) as table:
            for batch in table.batches(64, ["episode_index", self.key]):
                for row in batch.to_pylist():
                    if row["episode_index"] == self.episode.index:
                        yield picture(row[self.key], size)


def count_pixels(
    root: Path, info: Info, episodes: Sequence[Episode], cameras: Iterable[str], workers: int
) -> dict[str, ImageStatistics]:
    """Decode every frame of the ``cameras`` and count its pixels, by camera.

    Raises:
        DatasetError: a frame cannot be decoded, or frames are missing.
    """
    jobs = []
    for key in cameras:
        feature = info.features[key]
        size = size_of(feature) if feature["dtype"] == "image" else None
        jobs += [_Counting(root, key, episode, info.fps, size) for episode in episodes]
    found: dict[str, ImageStatistics] = {}
    if not jobs:
        return found
    with (
        processes(min(workers, len(jobs))) as run_all,
        bar(total=len(jobs), desc="counting pixels", unit="video") as progress,
    ):
        for key, counted in run_all(_run, jobs):
            sum_ = found.setdefault(key, ImageStatistics())
            sum_.counts += counted.counts
            sum_.frames += counted.frames
            progress.update()
    return found


def _run(job: _Counting) -> tuple[str, ImageStatistics]:
    return job.run()


@dataclass(frozen=True)
class Counted:
    """Pixel counts of a dataset, by camera.

    Attributes:
        counts: pixel counts of all cameras except depth cameras.
        decoded: cameras whose counts were computed now, from decoded frames.
        moments: moments of these cameras' decoded frames.
    """

    counts: dict[str, PixelCounts]
    decoded: list[str]
    moments: dict[str, Statistics]


@dataclass(frozen=True)
class Repaired:
    """Result of a repair: number of features, and the cameras that were decoded."""

    features: int
    decoded: list[str]

    @property
    def words(self) -> str:
        """Description for messages."""
        decoded = f" ({', '.join(self.decoded)} decoded)" if self.decoded else ""
        return f"{self.features} features{decoded}"


def counted(root: Path, workers: int | None) -> Counted:
    """Pixel counts of the dataset in ``root``: recorded ones, and of other cameras counted now.

    Raises:
        DatasetError: a frame cannot be decoded.
    """
    info = layout.read_info(root)
    counts = counts_in(root, info)
    missing = [key for key in pixels_of(info) if key not in counts]
    found = count_pixels(root, info, _episodes(root, info), missing, number_of(workers or None))
    return Counted(
        counts | {key: each.counts for key, each in found.items()},
        list(found),
        {key: each.result() for key, each in found.items()},
    )


def repair_statistics(dataset_root: str | Path, workers: int | None = None) -> Repaired:
    """Recompute the statistics of a dataset; update its contract, record it in its provenance.

    All other files are unchanged. Readers find the old dataset or the new one.

    Raises:
        StorageError: an append to it is unfinished, or another process changed it meanwhile.
        DatasetError: its rows or frames cannot be read.
    """
    output = Output(dataset_root)
    output.settle()
    work_dir = output.work_dir()
    output.require_writable(work_dir)
    with work_dir.locked():
        if work_dir.begun is not None and work_dir.worth_keeping:
            raise StorageError(
                f"there is an unfinished conversion to {output}; finish it with --resume=True, or"
                f" discard it by `rm -r {work_dir.directory}`"
            )
        work_dir.clear()
        base = storage.fetch(output.uri)
        state = state_of(base)
        durable.link_tree(base, work_dir.assembling)
        repaired = _rewrite(work_dir.assembling, workers)
        durable.sync_tree(work_dir.assembling)
        durable.rename(work_dir.assembling, work_dir.dataset)
        if state_of(storage.fetch(output.uri, only=output.decides)) != state:
            raise StorageError(
                f"{output} was changed by another process meanwhile; repair it again"
            )
        output.swap(work_dir)
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
    """Moments of a camera: of its episodes' statistics, else of its decoded frames."""
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
    """Recorded statistics of depth cameras, which are not recomputed."""
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
