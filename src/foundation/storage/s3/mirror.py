"""Local mirror of an S3 prefix or object, for code that reads the same files many times."""

import contextlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from stat import S_ISREG

from pydantic import RootModel

from foundation.documents import Document, InvalidDocument, Reader, inside
from foundation.errors import IntegrityError, NotFound, PreconditionFailed, StorageError
from foundation.files import open_to_append
from foundation.storage.s3.cache import (
    LOCK,
    directory_of,
    evict_others,
    evict_until_fits,
    fetching,
    pin,
)
from foundation.storage.s3.location import Location, clash
from foundation.storage.s3.progress import progress
from foundation.storage.s3.snapshot import Snapshot, snapshot_of_object, take_snapshot
from foundation.storage.s3.transfer import in_parallel, is_known, receive

INDEX = ".index.jsonl"
UNFINISHED = ".unfinished"
# How often to retry when the remote content is replaced during a fetch.
ROUNDS = 5


def fetch(
    url: str, *, only: Callable[[str], bool] | None = None, required: str | None = None
) -> Path:
    """Return a local directory with the files at ``url``, fetching those that are missing.

    A file appears in it only when it is complete, with the size and digest that it has in S3. All
    files are of one version; it stays unchanged while this process lives, even if S3 changes.

    Args:
        url: ``s3://bucket/prefix``.
        only: Predicate of the relative names to fetch; others may be there as well. None for all.
        required: A relative name; without this object nothing is fetched.

    Raises:
        NotFound: nothing lies there, or not ``required``.
        StorageError: a publication there is unfinished, it may not or cannot be read, or the
            cache cannot hold it.
    """
    location = Location.parse(url)

    def once() -> Path:
        snapshot = take_snapshot(location)
        if required is not None and required not in snapshot.files:
            raise NotFound(f"{location} has no {required}")
        names = [name for name in snapshot.files if only is None or only(name)]
        return Mirror(snapshot).fetch(names)

    return _until_it_stays(once, location)


def fetch_file(url: str) -> Path:
    """Return a local copy of the one object at ``url``.

    Raises:
        NotFound: there is none.
        StorageError: it cannot be read.
    """
    location = Location.parse(url)
    name = location.key.rpartition("/")[2]
    return (
        _until_it_stays(lambda: Mirror(snapshot_of_object(location)).fetch([name]), location) / name
    )


def _until_it_stays(once: Callable[[], Path], location: Location) -> Path:
    """Retry if the remote changes while it is fetched; raise if one version fails twice."""
    seen: list[str] = []
    for _ in range(ROUNDS):
        try:
            return once()
        except (PreconditionFailed, NotFound) as error:
            if isinstance(error, NotFound) and not isinstance(error, Vanished):
                raise
            now = _state(location)
            if seen and seen[-1] == now:
                raise IntegrityError(f"{error}; publish it again") from error
            seen.append(now)
            last = error
    raise StorageError(f"{location} changes faster than it can be fetched ({last})")


def _state(location: Location) -> str:
    try:
        return take_snapshot(location).version
    except NotFound:
        return ""


class Vanished(NotFound):
    """An object that was listed is not there."""


class Kept(Document):
    """A file of the mirror: its identity in S3, and its stat on disk after the download.

    A program that changes a file can restore its size and its ``mtime``, but not its ``ctime``;
    older versions recorded no ``ctime``.
    """

    identity: str
    size: int
    mtime_ns: int
    ctime_ns: int = 0


class _Line(RootModel[tuple[str, Kept]]):
    """A line of the index: a name, and what is kept under it."""


_READER = Reader(size=2 << 30, depth=2, values=16)


class Mirror:
    """One version of the content of an address, on disk."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.place = directory_of(snapshot.location)
        self.version = self.place / snapshot.version
        # Ends in the name of the address, which some tools show or use.
        name = snapshot.location.key.rpartition("/")[2] or snapshot.location.bucket
        if name in (INDEX, UNFINISHED, LOCK):
            raise StorageError(
                f"{snapshot.location} cannot be fetched: the cache has files of its own that are "
                f"called {name}; choose another name"
            )
        self.directory = self.version / name
        self.kept: dict[str, Kept] = {}
        self.lock = threading.Lock()

    def fetch(self, names: list[str]) -> Path:
        """Return its directory, with these files in it.

        Raises:
            PreconditionFailed, NotFound: a file is no longer as in the snapshot.
            StorageError: it cannot be read, or the cache cannot hold it, as when a name is both a
                file and a folder.
        """
        if both := clash(names):
            raise StorageError(
                f"{self.snapshot.location} has both {both[0]} and {both[1]}, which no directory "
                "holds; remove one of them, or fetch them by themselves"
            )
        with fetching(self.place):
            pin(self.version)
            self.directory.mkdir(exist_ok=True)
            self.kept = _read_index(self.version)
            taken: list[str] = []
            missing = self._missing(names)
            if missing:
                taken = self._take_over(missing)
                missing = [name for name in missing if name not in self.kept]
            if missing:
                self._download(missing)
            evict_others(self.version)
            for name in taken:  # evicting the other link to a file changes its ctime
                self._keep(name)
        return self.directory

    def _path(self, name: str, below: str) -> Path:
        """Return the path of a file to write, making its folder if it is missing."""
        path = inside(self.version, f"{below}/{name}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise StorageError(
                f"{self.snapshot.location} has {name}, and a file where a folder would be; remove "
                "one of them, or fetch them by themselves"
            ) from error
        return path

    def _download(self, names: list[str]) -> None:
        files = self.snapshot.files
        total = sum(files[name].size for name in names)
        evict_until_fits(total, str(self.snapshot.location))
        what = f"fetching {self.snapshot.location}"
        with progress(what, len(names), total) as advance:
            in_parallel(lambda name: self._download_one(name, advance), names)

    def _download_one(self, name: str, advance: Callable[[int], None]) -> None:
        file, final = self.snapshot.files[name], self._path(name, self.directory.name)
        unfinished = self._path(name, UNFINISHED)
        try:
            receive(file.location, file.stored, unfinished, advance)
        except NotFound as error:
            raise Vanished(str(error)) from error
        os.replace(unfinished, final)
        self._keep(name)

    def _take_over(self, names: list[str]) -> list[str]:
        """Hard-link unchanged files from older versions; return their names."""
        taken: list[str] = []
        for index in self.place.glob(f"*/{INDEX}"):
            if index.parent == self.version:
                continue
            kept = _read_index(index.parent)
            for name in names:
                source, old = index.parent / self.directory.name / name, kept.get(name)
                if old is None or old.identity != self._identity(name) or name in self.kept:
                    continue
                if self._is_whole(source, old, name):
                    target = self._path(name, self.directory.name)
                    target.unlink(missing_ok=True)
                    # The older version may be evicted at this moment.
                    with contextlib.suppress(FileNotFoundError):
                        os.link(source, target)
                        self._keep(name)
                        taken.append(name)
        return taken

    def _missing(self, names: list[str]) -> list[str]:
        """Return the names that are missing or changed on disk; drop those from the index."""

        def settle(name: str) -> None:
            if self._is_whole(self.directory / name, self.kept[name], name):
                self._keep(name)
            else:
                del self.kept[name]

        for name in names:
            if name in self.kept and self.kept[name].identity != self._identity(name):
                del self.kept[name]
        here = [name for name in names if name in self.kept]
        in_parallel(settle, [n for n in here if not _is(self.directory / n, self.kept[n])])
        return [name for name in names if name not in self.kept]

    def _is_whole(self, path: Path, kept: Kept, name: str) -> bool:
        """Return whether a file still has the content that was fetched."""
        if _is(path, kept):
            return True
        # A link to it was made or removed, it was copied, or somebody has written to it.
        return _size(path) == kept.size and is_known(self.snapshot.files[name].stored, path)

    def _keep(self, name: str) -> None:
        found = (self.directory / name).stat()
        kept = Kept(
            identity=self._identity(name),
            size=found.st_size,
            mtime_ns=found.st_mtime_ns,
            ctime_ns=found.st_ctime_ns,
        )
        # A process that was killed may have left half a line.
        line = f"\n{json.dumps([name, kept.model_dump()])}\n"
        with self.lock, open_to_append(self.version / INDEX) as lines:
            self.kept[name] = kept
            lines.write(line.encode())

    def _identity(self, name: str) -> str:
        return self.snapshot.files[name].identity


def _read_index(version: Path) -> dict[str, Kept]:
    kept: dict[str, Kept] = {}
    try:
        lines = _READER.read(version / INDEX).split(b"\n")
    except (FileNotFoundError, InvalidDocument):
        return kept
    for line in filter(None, lines):
        try:
            name, found = _READER.parse_json(line, _Line, INDEX).root
            kept[name] = found
        except InvalidDocument:
            continue
    return kept


def _is(path: Path, kept: Kept) -> bool:
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    there = (found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return S_ISREG(found.st_mode) and there == (kept.size, kept.mtime_ns, kept.ctime_ns)


def _size(path: Path) -> int:
    """Return the bytes of a regular file; -1 if there is none."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return -1
    return found.st_size if S_ISREG(found.st_mode) else -1
