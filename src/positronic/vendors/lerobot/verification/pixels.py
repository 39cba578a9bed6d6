"""Pixel counts of a dataset's cameras, from its decoded frames."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foundation.documents import inside
from foundation.progress import bar
from foundation.tables import open_table
from positronic.errors import DatasetError
from positronic.vendors.lerobot.dataset.layout import Episode, Info, one_line, size_of
from positronic.vendors.lerobot.dataset.statistics import ImageStatistics
from positronic.vendors.lerobot.verification.picture_checks import UNDECODABLE, picture
from positronic.vendors.lerobot.verification.processes import processes
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


def count(
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
