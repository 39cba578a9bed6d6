"""Datasets on the local disk, in the layout of public Positronic.

::

    root/
      000000000000/          block: episodes 0 to 999
        000000000000/        episode: 12 digits; ids may have gaps
          static.json        static values
          meta.json          about the recording
          <signal>.parquet   a numeric signal
          <signal>.mp4       a video signal, and
          <signal>.frames.parquet  its frame index
          .unfinished        only while it is being written: the episode is skipped
"""

import os
from collections import deque
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, override

from positronic.dataset import statics
from positronic.dataset.dataset import ConcatDataset, Dataset
from positronic.dataset.episode import Episode
from positronic.dataset.faults import broken, reading
from positronic.dataset.numeric import NumericSignal
from positronic.dataset.signal import Signal
from positronic.dataset.video import VideoSignal
from positronic.errors import DatasetError

UNFINISHED = ".unfinished"
STATIC = "static.json"
META = "meta.json"
BLOCK = 1000
INDEX_SUFFIX = ".frames.parquet"


def is_number(name: str) -> bool:
    """Whether a directory name is that of a block or an episode."""
    return len(name) == 12 and name.isascii() and name.isdigit()


def numbered(directory: Path) -> list[Path]:
    """Block or episode directories inside ``directory``, in the order of their numbers."""
    with os.scandir(directory) as entries:
        names = [entry.name for entry in entries if is_number(entry.name) and entry.is_dir()]
    return [directory / name for name in sorted(names)]


class DiskEpisode(Episode):
    """One episode directory. Opening it lists the files; a broken one is reported when touched."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with reading(self.path, "directory"):
            files = set(os.listdir(self.path))
        if UNFINISHED in files:
            why = "it is still being written, or its recorder was killed"
            raise broken(self.path, "not finished", why, "wait for the recorder, or delete it")
        self._files = files

    def __repr__(self) -> str:
        return f"DiskEpisode({str(self.path)!r})"

    @cached_property
    @override
    def signals(self) -> Mapping[str, Signal]:
        found: dict[str, Signal] = {}
        for file in self._files:
            if file.endswith((".mp4", INDEX_SUFFIX)):
                name = file.removesuffix(".mp4").removesuffix(INDEX_SUFFIX)
                video, index = self.path / f"{name}.mp4", self.path / f"{name}{INDEX_SUFFIX}"
                found[name] = VideoSignal(video, index, name)
        for file in self._files:
            name = file.removesuffix(".parquet")
            if name != file and name not in found and not file.endswith(INDEX_SUFFIX):
                found[name] = NumericSignal(self.path / file, name)
        return dict(sorted(found.items()))

    def _json(self, file: str) -> dict[str, Any]:
        if file not in self._files:
            return {}
        with reading(self.path, file):
            return statics.load(self.path / file)

    @cached_property
    @override
    def static(self) -> Mapping[str, Any]:
        return self._json(STATIC)

    @cached_property
    def _recorded(self) -> dict[str, Any]:
        return self._json(META)

    @property
    def meta(self) -> dict[str, Any]:
        """What ``meta.json`` says, with the present ``path`` and the size ``size_mb`` (MiB)."""
        meta = dict(self._recorded)
        meta.pop("duration_ns", None)
        meta["path"] = str(self.path.resolve())
        sizes = [e.stat().st_size for e in os.scandir(self.path) if e.is_file()]
        meta["size_mb"] = sum(sizes) / 2**20
        return meta

    @property
    def duration_ns(self) -> int:
        """``last_ts - start_ts`` in ns, as the recorder noted it, else from the signals."""
        noted = self._recorded.get("duration_ns")
        return super().duration_ns if noted is None else int(noted)


class LocalDataset(Dataset):
    """The finished episodes under ``root``, by number; later recordings are not seen.

    DatasetError when ``root`` is missing, is no directory, or holds no finished episode.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser()
        _require_directory(self.root)
        self._episodes, unfinished = _finished(self.root)
        if not self._episodes:
            raise _nothing(self.root, unfinished)

    def __len__(self) -> int:
        return len(self._episodes)

    def __repr__(self) -> str:
        return f"LocalDataset({str(self.root)!r}, {len(self)} episodes)"

    @override
    def episode(self, index: int) -> DiskEpisode:
        return DiskEpisode(self._episodes[index])


def load_all_datasets(root: str | Path) -> Dataset:
    """Every dataset in the tree under ``root``, concatenated, nearest first, then by name.

    Hidden directories are not searched. DatasetError when there is no finished episode.
    """
    top = Path(root).expanduser()
    _require_directory(top)
    found: list[Dataset] = []
    unfinished = 0
    queue = deque([top])
    while queue:
        directory = queue.popleft()
        episodes, skipped = _finished(directory)
        unfinished += skipped
        if episodes:
            found.append(LocalDataset(directory))
        with os.scandir(directory) as entries:
            inner = [e.name for e in entries if e.is_dir() and not is_number(e.name)]
        queue.extend(directory / name for name in sorted(inner) if not name.startswith("."))
    if not found:
        raise _nothing(top, unfinished)
    return found[0] if len(found) == 1 else ConcatDataset(*found)


def _finished(root: Path) -> tuple[list[Path], int]:
    """Finished episodes in order, and the number of those skipped because unfinished."""
    every = [episode for block in numbered(root) for episode in numbered(block)]
    every.sort(key=lambda episode: episode.name)
    finished = [episode for episode in every if not (episode / UNFINISHED).exists()]
    return finished, len(every) - len(finished)


def _require_directory(path: Path) -> None:
    if not path.exists():
        raise DatasetError(f"no dataset at {path}: no such directory; check the path")
    if not path.is_dir():
        raise DatasetError(f"no dataset at {path}: not a directory; give the dataset's directory")


def _nothing(path: Path, unfinished: int) -> DatasetError:
    also = f" ({unfinished} unfinished skipped)" if unfinished else ""
    return DatasetError(
        f"no finished episodes under {path}{also}; expected <12 digits>/<12 digits>/ directories: "
        "check the path, or record some episodes first"
    )
