"""Datasets on the local disk, in the layout of public Positronic.

::

    root/
      000000000000/          block: episodes 0 to 999
        000000000000/        episode: 12 digits; ids may have gaps
          static.json        static values
          meta.json          about the recording
          <signal>.parquet   a numeric signal
          <signal>.mp4       a video signal, with
          <signal>.frames.parquet  its frame index
          .unfinished        present while it is being written: readers skip it
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, override

from foundation.text import printable
from positronic.dataset import edits, statics
from positronic.dataset.dataset import Dataset
from positronic.dataset.edits import EDITS, Log, own_log
from positronic.dataset.faults import broken, reading
from positronic.dataset.numeric import NumericSignal
from positronic.dataset.recorded import (
    INDEX_SUFFIX,
    UNFINISHED,
    UNNAMED,
    RecordedEpisode,
    is_number,
)
from positronic.dataset.signal import Signal
from positronic.dataset.video import VideoSignal
from positronic.errors import DatasetError, EpisodeError


def numbered(directory: Path) -> list[Path]:
    """Block or episode directories inside ``directory``, in the order of their numbers."""
    return [directory / name for name in directories(directory) if is_number(name)]


def directories(directory: Path) -> list[str]:
    """Sorted names of the subdirectories; entries that cannot be examined are left out.

    DatasetError when it cannot be listed.
    """
    try:
        with os.scandir(directory) as entries:
            return sorted(entry.name for entry in entries if os.path.isdir(entry.path))
    except OSError as error:
        raise DatasetError(
            f"the directory {printable(directory)} cannot be listed: {error.strerror}; "
            "check its permissions"
        ) from error


class DiskEpisode(RecordedEpisode):
    """One episode directory. Opening it lists the files; a damaged file raises when it is read."""

    path: Path

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        with reading(path, "directory"):
            files = os.listdir(path)
        super().__init__(path, frozenset(files))

    @override
    def _file(self, name: str) -> Path:
        return self.path / name

    @override
    def _sizes(self) -> dict[str, int]:
        with reading(self.path, "directory"):
            names = os.listdir(self.path)
        files = [name for name in names if os.path.isfile(self.path / name)]
        return {name: os.path.getsize(self.path / name) for name in files}

    @override
    def _numeric(self, name: str) -> Signal:
        return NumericSignal(self.path / f"{name}.parquet", name)

    @override
    def _video(self, name: str) -> Signal:
        return VideoSignal(self.path / f"{name}.mp4", self.path / f"{name}{INDEX_SUFFIX}", name)

    @property
    @override
    def meta(self) -> dict[str, Any]:
        return {**super().meta, "path": str(self.path.resolve())}


class LocalDataset(Dataset):
    """The episodes under ``root`` that were finished when it was opened, by number.

    They are as recorded: :func:`~positronic.dataset.load_all_datasets` applies edits. `drop`,
    `undrop` and `set_static` add to the edit log inside each episode of a uid, as public Positronic
    does; the recording itself stays.

    DatasetError if ``root`` is missing, not a directory, or without a finished episode.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser()
        require_directory(self.root)
        self._episodes, unfinished = finished(self.root)
        if not self._episodes:
            raise no_episodes(self.root, unfinished)

    def __len__(self) -> int:
        return len(self._episodes)

    def __repr__(self) -> str:
        return f"LocalDataset({str(self.root)!r}, {len(self)} episodes)"

    @override
    def episode(self, index: int) -> DiskEpisode:
        return DiskEpisode(self._episodes[index])

    def drop(self, uid: str, why: str | None = None) -> None:
        """Leave the episode out of what is read with edits, and say why.

        DatasetError if there is none with this uid.
        """
        self._edit(uid, "drop", {} if why is None else {"why": str(why)})

    def undrop(self, uid: str) -> None:
        """Take a dropped episode back; DatasetError if there is none."""
        self._edit(uid, "undrop", {})

    def set_static(self, uid: str, data: Mapping[str, Any]) -> None:
        """Set static values of the episode, over those that were recorded.

        Raises:
            DatasetError: there is no episode with this uid, or its log cannot be continued.
            EpisodeError: a name is that of a signal of the episode.
            ValueError: a value is None, or of a type that cannot be stored.
        """
        self._edit(uid, "set_static", {"data": statics.checked(dict(data), "data")})

    def _edit(self, uid: str, op: str, more: Mapping[str, Any]) -> None:
        found = [episode for episode in self if episode.uid == uid]
        if not found:
            raise DatasetError(
                f"no episode of {self.root} has the uid {printable(uid, 200)!r}; an episode's own "
                "is its attribute uid"
            )
        if uid.startswith(UNNAMED) and len(found) > 1:
            raise DatasetError(
                f"{len(found)} episodes of {self.root} have the uid {printable(uid, 200)!r}, made "
                "from their file sizes because meta.json has none; give each its own there"
            )
        for episode in found:
            for name in more.get("data", ()):
                if name in episode.signals:
                    raise broken(
                        str(episode.meta["path"]),
                        f"static {printable(name, 200)!r}",
                        "a signal of the episode has this name",
                        "choose another name",
                    )
        record = {"op": op, "v": 1, "ep": uid, **more}
        for episode in found:
            edits.append(Path(episode.meta["path"]), record)

    def logs(self) -> dict[int, Log | EpisodeError]:
        """The edit logs inside its episodes by position, or the error of reading one."""
        found = {i: own_log(path, path / EDITS) for i, path in enumerate(self._episodes)}
        return {i: log for i, log in found.items() if log}


def finished(root: Path) -> tuple[list[Path], int]:
    """Finished episodes in order, and the number of unfinished ones."""
    every = [episode for block in numbered(root) for episode in numbered(block)]
    every.sort(key=lambda episode: episode.name)
    finished = [episode for episode in every if not os.path.lexists(episode / UNFINISHED)]
    return finished, len(every) - len(finished)


def require_directory(path: Path) -> None:
    """DatasetError unless ``path`` is a directory."""
    if not path.exists():
        raise DatasetError(f"no dataset at {path}: no such directory; check the path")
    if not path.is_dir():
        raise DatasetError(f"no dataset at {path}: not a directory; give the dataset's directory")


def no_episodes(path: Path | str, unfinished: int, *, dropped: bool = False) -> DatasetError:
    """DatasetError for a path without episodes, naming the likely cause."""
    if dropped:
        return DatasetError(
            f"every episode under {path} was dropped by an {EDITS} there; undrop some, or remove "
            "the log"
        )
    also = f" ({unfinished} unfinished skipped)" if unfinished else ""
    return DatasetError(
        f"no finished episodes under {path}{also}; expected <12 digits>/<12 digits>/ directories: "
        "check the path, or record some episodes first"
    )
