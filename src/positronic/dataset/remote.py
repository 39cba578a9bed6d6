"""Datasets on S3: listed once, and each file fetched when it is first read.

The names come with one listing. Opening an episode fetches nothing; its static values, what was
noted of the recording, and each signal come one by one as they are asked for, and stay in the
cache. So a conversion fetches what its codec needs, and counting or choosing episodes nothing.
The objects here can be sent to other processes, which then fetch for themselves.
"""

import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, override

from positronic import storage
from positronic.dataset.dataset import Dataset
from positronic.dataset.edits import EDITS, Log, edited, read_log
from positronic.dataset.faults import reading
from positronic.dataset.numeric import NumericSignal
from positronic.dataset.recorded import (
    INDEX_SUFFIX,
    META,
    STATIC,
    UNFINISHED,
    RecordedEpisode,
)
from positronic.dataset.signal import Signal
from positronic.dataset.video import VideoSignal

CONNECTIONS = 16  # small files at once: almost all of their time is waiting for the first byte

# The directory of a dataset has no hidden and no numeric part; then block, episode, file.
_PART = r"(?!\.|\d{12}/)[^/]+/"
_FILE = re.compile(
    rf"(?P<dataset>({_PART})*)(?P<episode>\d{{12}}/(?P<id>\d{{12}}))/(?P<file>[^/]+)"
)
_LOG = re.compile(rf"(?P<dataset>({_PART})*){re.escape(EDITS)}")


class RemoteNumericSignal(NumericSignal):
    """A parquet signal whose file is fetched at the first read."""

    def __init__(self, episode: str, name: str) -> None:
        self._uri = storage.join(episode, f"{name}.parquet")
        self._episode = episode
        super().__init__(Path(), name)

    @override
    def _reading(self) -> Any:
        if not self._path.is_file():
            self._path = storage.fetch_file(self._uri)
        return reading(self._episode, f"signal {self._name!r}", self._path)


class RemoteVideoSignal(VideoSignal):
    """A video signal whose two files are fetched at the first read."""

    def __init__(self, episode: str, name: str) -> None:
        self._episode = episode
        super().__init__(Path(), Path(), name)

    @override
    def __getstate__(self) -> dict[str, Any]:
        return {"episode": self._episode, "name": self._name}

    @override
    def __setstate__(self, state: dict[str, Any]) -> None:
        RemoteVideoSignal.__init__(self, **state)

    @override
    def _reading(self) -> Any:
        if not (self._video.is_file() and self._index.is_file()):
            self._index = storage.fetch_file(
                storage.join(self._episode, f"{self._name}{INDEX_SUFFIX}")
            )
            self._video = storage.fetch_file(storage.join(self._episode, f"{self._name}.mp4"))
        return reading(self._episode, f"signal {self._name!r}", self._video, self._index)


class RemoteEpisode(RecordedEpisode):
    """One episode at a URL; ``sizes`` is what was listed there, bytes by file name."""

    path: str

    def __init__(self, uri: str, sizes: Mapping[str, int]) -> None:
        super().__init__(uri, frozenset(sizes))
        self._listed = sizes

    @override
    def _file(self, name: str) -> Path:
        return storage.fetch_file(storage.join(self.path, name))

    @override
    def _sizes(self) -> dict[str, int]:
        return dict(self._listed)

    @override
    def _numeric(self, name: str) -> Signal:
        return RemoteNumericSignal(self.path, name)

    @override
    def _video(self, name: str) -> Signal:
        return RemoteVideoSignal(self.path, name)


class RemoteDataset(Dataset):
    """Finished episodes under a URL, by number.

    ``episodes`` are their directories below ``root``, with bytes by file name.
    """

    def __init__(self, root: str, episodes: Mapping[str, Mapping[str, int]]) -> None:
        self.root = root
        self._episodes = sorted(episodes.items(), key=lambda item: item[0].rpartition("/")[2])

    def __len__(self) -> int:
        return len(self._episodes)

    def __repr__(self) -> str:
        return f"RemoteDataset({self.root!r}, {len(self)} episodes)"

    @override
    def episode(self, index: int) -> RemoteEpisode:
        directory, sizes = self._episodes[index]
        return RemoteEpisode(storage.join(self.root, directory), sizes)

    @override
    def prefetch(self, positions: Iterable[int]) -> None:
        chosen = [self._episodes[i] for i in positions]
        small = [
            storage.join(self.root, directory, name)
            for directory, sizes in chosen
            for name in (STATIC, META)
            if name in sizes
        ]
        with ThreadPoolExecutor(CONNECTIONS) as threads:
            for _ in threads.map(storage.fetch_file, small):
                pass

    def logs(self) -> dict[int, Log]:
        """The edit logs that lie inside its episodes, by position."""
        found: dict[int, Log] = {}
        for position, (directory, sizes) in enumerate(self._episodes):
            if EDITS in sizes:
                uri = storage.join(self.root, directory, EDITS)
                found[position] = read_log(storage.fetch_file(uri), uri)
        return found


def remote_datasets(root: str, nested: bool) -> tuple[list[Dataset], int]:
    """The datasets below a URL, nearest first, and the number of unfinished episodes."""
    names = {name: entry.size for name, entry in storage.listing(root).items()}
    every: dict[str, dict[str, dict[str, int]]] = {}
    for name, size in names.items():
        if match := _FILE.fullmatch(name):
            episodes = every.setdefault(match["dataset"], {})
            episodes.setdefault(match["episode"], {})[match["file"]] = size
    logs = {
        match["dataset"]: read_log(storage.fetch_file(uri), uri)
        for name in names
        if (match := _LOG.fullmatch(name))
        for uri in (storage.join(root, name),)
    }
    found: dict[str, Dataset] = {}
    unfinished = 0
    for directory in sorted(every, key=lambda d: (d.count("/"), d.split("/"))):
        outer = _outer(directory)
        if not nested and any(above in found for above in outer[1:]):
            continue
        finished = {k: files for k, files in every[directory].items() if UNFINISHED not in files}
        unfinished += len(every[directory]) - len(finished)
        if finished:
            dataset = RemoteDataset(storage.join(root, directory), finished)
            said = [logs[above] for above in outer if above in logs]
            found[directory] = edited(dataset, said, dataset.logs())
    return list(found.values()), unfinished


def _outer(directory: str) -> list[str]:
    """``a/b/`` to ``a/b/``, ``a/`` and the root, which is empty."""
    parts = directory.split("/")[:-1]
    return ["".join(f"{part}/" for part in parts[:i]) for i in range(len(parts), -1, -1)]
