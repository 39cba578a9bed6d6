"""Datasets on S3: listed once, and each file fetched when it is first read.

One listing gives all names. Opening an episode fetches nothing; static values, metadata and each
signal are fetched one by one on demand, and kept in the cache. So a conversion fetches only what
its codec needs, and counting episodes fetches nothing. The objects here can be pickled; the
receiving process fetches for itself.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, override

from foundation import storage
from positronic.dataset.dataset import Dataset
from positronic.dataset.edits import EDITS, Log, edited, own_log, read_log
from positronic.dataset.faults import broken, reading
from positronic.dataset.numeric import NumericSignal
from positronic.dataset.recorded import INDEX_SUFFIX, META, STATIC, UNFINISHED, RecordedEpisode
from positronic.dataset.signal import Signal
from positronic.dataset.statics import READER
from positronic.dataset.video import VideoSignal
from positronic.errors import EpisodeError

# A dataset's directory has no hidden and no numeric component; then block, episode, file.
_PART = r"(?!\.|\d{12}/)[^/]+/"
_FILE = re.compile(
    rf"(?P<dataset>({_PART})*)(?P<episode>\d{{12}}/\d{{12}})/(?P<file>(?!\.\.?$)[^/]+)"
)
_LOG = re.compile(rf"(?P<dataset>({_PART})*){re.escape(EDITS)}")


class RemoteNumericSignal(NumericSignal):
    """A parquet signal whose file is fetched at the first read."""

    def __init__(self, files: storage.Tree, name: str) -> None:
        super().__init__(Path(), name)
        self._files = files

    @override
    def _reading(self) -> Any:
        if not self._path.is_file():
            file = f"{self._name}.parquet"
            self._path = self._files.fetch([file]) / file
        return reading(self._files.uri, f"signal {self._name!r}", self._path)


class RemoteVideoSignal(VideoSignal):
    """A video signal whose two files are fetched at the first read."""

    def __init__(self, files: storage.Tree, name: str) -> None:
        super().__init__(Path(), Path(), name)
        self._files = files

    @override
    def __getstate__(self) -> dict[str, Any]:
        return {"files": self._files, "name": self._name}

    @override
    def __setstate__(self, state: dict[str, Any]) -> None:
        RemoteVideoSignal.__init__(self, **state)

    @override
    def _reading(self) -> Any:
        if not (self._video.is_file() and self._index.is_file()):
            names = _files_of(self._name, self._files.sizes)
            directory = self._files.fetch(names)
            self._video = directory / f"{self._name}.mp4"
            self._index = directory / f"{self._name}{INDEX_SUFFIX}"
        return reading(self._files.uri, f"signal {self._name!r}", self._video, self._index)


class RemoteEpisode(RecordedEpisode):
    """One episode in S3.

    Args:
        dataset: the tree it belongs to, from which its small files are fetched.
        directory: its directory in that tree.
        files: names of its files.
    """

    path: str

    def __init__(self, dataset: storage.Tree, directory: str, files: Iterable[str]) -> None:
        names = frozenset(files)
        super().__init__(storage.join(dataset.uri, directory), names)
        self._dataset = dataset
        self._directory = directory
        self._tree = dataset.part(directory, names)

    @override
    def _file(self, name: str) -> Path:
        if self._sizes().get(name, 0) > READER.size:
            raise broken(self.path, name, f"it is larger than the {READER.size} bytes expected")
        # Fetched by the dataset's tree, so that the episodes share one entry of the cache.
        path = f"{self._directory}/{name}"
        return self._dataset.fetch([path]) / path

    @override
    def _sizes(self) -> dict[str, int]:
        return self._tree.sizes

    @override
    def _numeric(self, name: str) -> Signal:
        return RemoteNumericSignal(self._tree, name)

    @override
    def _video(self, name: str) -> Signal:
        return RemoteVideoSignal(self._tree, name)

    @override
    def prefetch(self, names: Iterable[str]) -> None:
        files = [file for name in names for file in _files_of(name, self._files)]
        if files:
            self._tree.fetch(files)


def _files_of(name: str, present: Iterable[str]) -> list[str]:
    possible = {f"{name}.parquet", f"{name}.mp4", f"{name}{INDEX_SUFFIX}"}
    return sorted(possible.intersection(present))


class RemoteDataset(Dataset):
    """Finished episodes in S3, by number.

    Args:
        tree: the listing.
        root: the dataset's directory in the tree, ending in a slash, or empty.
        episodes: file names by episode directory below ``root``.
    """

    def __init__(
        self, tree: storage.Tree, root: str, episodes: Mapping[str, Iterable[str]]
    ) -> None:
        self.root = storage.join(tree.uri, root)
        self._tree = tree
        self._episodes = [
            (f"{root}{directory}", list(files))
            for directory, files in sorted(episodes.items(), key=lambda item: item[0].split("/")[1])
        ]

    def __len__(self) -> int:
        return len(self._episodes)

    def __repr__(self) -> str:
        return f"RemoteDataset({self.root!r}, {len(self)} episodes)"

    @override
    def episode(self, index: int) -> RemoteEpisode:
        return RemoteEpisode(self._tree, *self._episodes[index])

    @override
    def prefetch(self, positions: Iterable[int]) -> None:
        chosen = [self._episodes[i] for i in positions]
        small = [f"{d}/{name}" for d, files in chosen for name in (STATIC, META) if name in files]
        sizes = self._tree.sizes
        small = [name for name in small if sizes[name] <= READER.size]
        if small:
            self._tree.fetch(small)

    def logs(self) -> dict[int, Log | EpisodeError]:
        """The edit logs inside its episodes by position, or the error of reading one."""
        found: dict[int, Log | EpisodeError] = {}
        for i, (directory, files) in enumerate(self._episodes):
            if EDITS in files:
                name = f"{directory}/{EDITS}"
                path = self._tree.fetch([name]) / name
                if log := own_log(storage.join(self._tree.uri, directory), path):
                    found[i] = log
        return found


def remote_datasets(uri: str, nested: bool) -> tuple[list[Dataset], int]:
    """The datasets below an S3 URL, nearest first, and the number of unfinished episodes."""
    tree = storage.Tree.at(uri)
    every: dict[str, dict[str, list[str]]] = {}
    logs: dict[str, Log] = {}
    for name in tree.sizes:
        if match := _FILE.fullmatch(name):
            episodes = every.setdefault(match["dataset"], {})
            episodes.setdefault(match["episode"], []).append(match["file"])
        elif match := _LOG.fullmatch(name):
            logs[match["dataset"]] = _log(tree, name)
    found: dict[str, Dataset] = {}
    unfinished = 0
    for root in sorted(every, key=lambda root: (root.count("/"), root.split("/"))):
        outer = _outer(root)
        if not nested and any(above in found for above in outer[1:]):
            continue
        complete = {d: files for d, files in every[root].items() if UNFINISHED not in files}
        unfinished += len(every[root]) - len(complete)
        if complete:
            dataset = RemoteDataset(tree, root, complete)
            applicable = [logs[above] for above in outer if above in logs]
            found[root] = edited(dataset, applicable, dataset.logs())
    return list(found.values()), unfinished


def _log(tree: storage.Tree, name: str) -> Log:
    return read_log(tree.fetch([name]) / name, storage.join(tree.uri, name))


def _outer(directory: str) -> list[str]:
    """``a/b/`` and its parents: ``a/b/``, ``a/`` and the root, which is empty."""
    parts = directory.split("/")[:-1]
    return ["".join(f"{part}/" for part in parts[:i]) for i in range(len(parts), -1, -1)]
