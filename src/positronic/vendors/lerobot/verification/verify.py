"""``positronic-to-lerobot verify``: check the integrity of a LeRobot dataset."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import configuronic as cfn

from foundation import storage
from foundation.console import coloured
from foundation.errors import UsageError
from foundation.progress import bar
from getiaction.dataset_info import Statistics
from getiaction.roots import pinned_dataset
from positronic.cli.kinds import DATASET, found_instead
from positronic.errors import DatasetError
from positronic.vendors.lerobot.conversion.output import Output
from positronic.vendors.lerobot.dataset import layout
from positronic.vendors.lerobot.dataset.fault import REPAIR, Fault
from positronic.vendors.lerobot.dataset.layout import Episode, Info, is_depth
from positronic.vendors.lerobot.verification import (
    metadata_checks,
    statistics_checks,
    totals_checks,
)
from positronic.vendors.lerobot.verification.picture_checks import PicturesCheck
from positronic.vendors.lerobot.verification.processes import number_of, processes
from positronic.vendors.lerobot.verification.repair import repair_statistics
from positronic.vendors.lerobot.verification.row_checks import RowsCheck
from positronic.vendors.lerobot.verification.video_checks import FramesCheck, PacketsCheck

__all__ = ["Verdict", "verify_dataset"]

FOREIGN = (
    "it has no contract, so positronic-to-lerobot did not write it: statistics are compared"
    " only as closely as LeRobot computes them"
)


class Check(Protocol):
    """A check of one file, or one episode in it, that runs in any process."""

    def run(self) -> list[Fault]:
        """Return the faults."""


@dataclass(frozen=True)
class Verdict:
    """Result of an examination.

    Attributes:
        faults: integrity errors, of files of ``meta/`` first.
        notes: unusual but valid findings.
        episodes: number of episodes in the episodes table.
        frames: number of rows according to it.
        cameras: number of cameras.
        decoded: whether frames were decoded.
        mendable: faults and notes that a repair fixes.
    """

    faults: tuple[Fault, ...]
    notes: tuple[str, ...]
    episodes: int
    frames: int
    cameras: int
    decoded: bool
    mendable: tuple[Fault, ...] = ()

    def summary(self, name: str) -> str:
        """One-line summary."""
        held = f"{self.episodes} episodes, {self.frames} frames, {self.cameras} cameras"
        if self.faults:
            faults = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
            return f"{name} is damaged: {faults} in {held}"
        decoded = ", every frame decoded" if self.decoded else ", frames not decoded"
        return f"{name} is valid: {held}{decoded if self.cameras else ''}"


@cfn.config()
def verify(
    dataset_root: str, decode: bool = True, workers: int | None = None, repair: str | None = None
) -> int:
    """Check the integrity of a LeRobot dataset; print each fault with file and episode.

    The exit status is 0 if the dataset is valid, and 1 if it has faults.

    Example:
        positronic-to-lerobot verify DATASET

    Args:
        dataset_root: The dataset's directory, s3://bucket/key, or hf://datasets/USER/NAME.
        decode: Decode every frame; otherwise only the videos' packets and timestamps are read.
        workers: Number of worker processes; by default one per CPU.
        repair: "statistics" recomputes meta/stats.json from all rows and pixels, if there are no
            other faults. Readers find the old dataset or the new one.
    """
    if repair not in (None, REPAIR):
        raise UsageError(f"--repair={repair}: expected {REPAIR}")
    Output(dataset_root).settle()
    place = pinned_dataset(dataset_root)
    verdict = verify_dataset(storage.fetch(place), decode=decode, workers=workers)
    if repair and verdict.mendable:
        others = [fault for fault in verdict.faults if not fault.mend]
        if not others:
            mended = repair_statistics(dataset_root, workers)
            print(f"{dataset_root}: recomputed the statistics of {mended.words}")
            verdict = verify_dataset(storage.fetch(dataset_root), decode=decode, workers=workers)
        else:
            print(f"nothing was repaired: there are faults other than {REPAIR}", file=sys.stderr)
    for fault in verdict.faults:
        print(f"{coloured('fault:', 'red')} {fault}")
    for note in verdict.notes:
        print(f"note: {note}")
    if verdict.mendable and not repair:
        print(
            "note: repair the statistics by `positronic-to-lerobot verify"
            f" --dataset_root={dataset_root} --repair={REPAIR}`"
        )
    print(coloured(verdict.summary(dataset_root), "red" if verdict.faults else "green"))
    return 1 if verdict.faults else 0


def verify_dataset(root: Path, *, decode: bool = True, workers: int | None = None) -> Verdict:
    """Verify the LeRobot dataset in the directory ``root``.

    Raises:
        DatasetError: it is not a dataset, or a worker process was killed.
    """
    number = number_of(workers)
    if not (root / layout.INFO).exists():
        near = found_instead(str(root), DATASET)
        raise DatasetError(f"{root} is not a LeRobot dataset: it has no {layout.INFO}{near}")
    return _Verification(root, decode).run(number)


class _Verification:
    """Verification of one dataset: the tables first, then in processes the files they refer to."""

    def __init__(self, root: Path, decode: bool) -> None:
        self._root = root
        self._decode = decode
        self._ours = metadata_checks.is_ours(root)
        self._faults: list[Fault] = []
        self._episodes: list[Episode] = []

    def run(self, workers: int) -> Verdict:
        info = self._read(layout.read_info)
        if info is None:
            return self._verdict(0)
        tables = layout.episode_tables(self._root)
        for table in tables:
            self._episodes += self._read(partial(layout.read_episodes, name=table, info=info)) or []
        tasks = self._read(layout.read_tasks) or []
        # Without valid tables, all other checks would report false faults.
        if not self._faults:
            held = f"{len(self._episodes)} episodes, {self._total_frames} frames"
            print(f"verifying {self._root}: {held} ...", file=sys.stderr, flush=True)
            stats = self._read(layout.read_stats) or {}
            self._meta(info, tables, tasks, stats)
            with processes(workers) as run_all:
                checks = [
                    *self._rows(info, dict(tasks)),
                    *self._packets(info),
                    *totals_checks.checks_of(
                        self._root, info, self._total_frames, stats, ours=self._ours
                    ),
                ]
                self._collect(run_all(_run, checks), len(checks), "verifying", "file")
                checks = [*self._pictures(info), *self._frames(info)] if self._decode else []
                self._collect(run_all(_run, checks), len(checks), "decoding", "video")
        return self._verdict(len(info.keys("video", "image")))

    def _verdict(self, cameras: int) -> Verdict:
        notes = [str(fault) for fault in self._faults if fault.note]
        if not self._ours:
            notes = [FOREIGN, *(f"{note}: LeRobot takes the episodes' mean" for note in notes)]
        faults = tuple(fault for fault in self._faults if not fault.note)
        mendable = tuple(fault for fault in self._faults if fault.mend)
        return Verdict(
            faults,
            tuple(notes),
            len(self._episodes),
            self._total_frames,
            cameras,
            self._decode,
            mendable,
        )

    @property
    def _total_frames(self) -> int:
        return sum(episode.length for episode in self._episodes)

    def _read[T](self, read: Callable[[Path], T]) -> T | None:
        try:
            return read(self._root)
        except DatasetError as error:
            self._faults.append(_unreadable(str(error)))
            return None

    def _meta(
        self,
        info: Info,
        tables: Sequence[str],
        tasks: Sequence[tuple[int, str]],
        stats: dict[str, Statistics],
    ) -> None:
        episodes = self._episodes
        self._faults += metadata_checks.info_faults(info, episodes, tasks)
        self._faults += metadata_checks.task_faults(tasks)
        self._faults += metadata_checks.episode_faults(episodes, tasks)
        self._faults += metadata_checks.file_faults(self._root, episodes, tables)
        self._faults += metadata_checks.stats_faults(stats, info)
        self._faults += totals_checks.camera_faults(
            self._root, info, episodes, stats, ours=self._ours
        )
        if self._ours:
            self._faults += metadata_checks.contract_faults(self._root, info, stats)
            self._faults += metadata_checks.provenance_faults(self._root, episodes)

    def _collect(self, found: Iterable[list[Fault]], total: int, desc: str, unit: str) -> None:
        if total == 0:
            return
        with bar(total=total, desc=desc, unit=unit) as progress:
            for faults in found:
                self._faults += faults
                progress.update()

    def _by_file(self, file_of: Callable[[Episode], str]) -> Iterator[tuple[str, list[Episode]]]:
        """Readable files in LeRobot's order, with their episodes."""
        found: dict[str, list[Episode]] = {}
        for episode in self._episodes:
            found.setdefault(file_of(episode), []).append(episode)
        broken = {fault.file for fault in self._faults if fault.unreadable}
        return ((file, found[file]) for file in sorted(found) if file not in broken)

    def _rows(self, info: Info, tasks: dict[int, str]) -> Iterator[Check]:
        for file, episodes in self._by_file(lambda episode: episode.data):
            first = sum(e.length for e in self._episodes if e.data < file)
            yield RowsCheck(
                self._root, file, first, info.features, info.fps, tasks, episodes, self._ours
            )

    def _packets(self, info: Info) -> Iterator[Check]:
        for key in info.keys("video"):
            for file, episodes in self._by_file(partial(_video, key=key)):
                yield PacketsCheck(self._root, key, file, info.features[key], info.fps, episodes)

    def _pictures(self, info: Info) -> Iterator[Check]:
        for key in info.keys("image"):
            kind = self._kind(info, key, "same")
            for file, episodes in self._by_file(lambda episode: episode.data):
                yield PicturesCheck(self._root, key, file, info.features[key], episodes, kind)

    def _frames(self, info: Info) -> Iterator[Check]:
        misplaced = {(fault.file, fault.episode) for fault in self._faults}
        for key in info.keys("video"):
            kind = self._kind(info, key, "encoded")
            for file, episodes in self._by_file(partial(_video, key=key)):
                for episode in episodes:
                    if (file, episode.index) not in misplaced:
                        yield FramesCheck(self._root, key, episode, info.fps, kind)

    def _kind(
        self, info: Info, key: str, ours: statistics_checks.Kind
    ) -> statistics_checks.Kind | None:
        if is_depth(info.features[key]):
            return None
        return ours if self._ours else "sampled"


def _unreadable(message: str) -> Fault:
    """Fault of a file of ``meta/``, from the message that begins with its name."""
    file = message.split(maxsplit=1)[0].rstrip(":")
    mend = REPAIR if file == layout.STATS else None
    return Fault(file, message.removeprefix(file).lstrip(": "), unreadable=True, mend=mend)


def _video(episode: Episode, key: str) -> str:
    return episode.videos[key].file


def _run(check: Check) -> list[Fault]:
    return check.run()
