"""What lies in S3 as a local directory: what reads files, and reads them many times, needs one."""

import contextlib
import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from getiaction.errors import GetiactionError
from getiaction.storage.cache import give_up_others, make_room, place_of, taking_turns, use
from getiaction.storage.location import Location
from getiaction.storage.parallel import in_parallel
from getiaction.storage.patience import NotThere, Overtaken
from getiaction.storage.progress import progress
from getiaction.storage.snapshot import Snapshot, snapshot_of_object, take_snapshot
from getiaction.storage.transfer import receive

INDEX = ".index.jsonl"
UNFINISHED = ".unfinished"
# How often to begin anew when what is being fetched is replaced meanwhile.
ROUNDS = 5


def fetch(
    url: str, *, only: Callable[[str], bool] | None = None, required: str | None = None
) -> Path:
    """Return a local directory with what lies at ``url``, fetching what is not there yet.

    A file appears in it only when it is whole, with the size and digest that it has in S3. All its
    files are of one version; it stays as it is while this process lives, also when S3 changes.

    Args:
        url: ``s3://bucket/prefix``.
        only: Whether a name below it is wanted; others may be there as well. None for all.
        required: A name below it; without this object nothing is fetched.

    Raises:
        NotThere: nothing lies there, or not ``required``.
        GetiactionError: a publication there is unfinished, it may not or cannot be read, or the
            cache cannot hold it.
    """
    location = Location.parse(url)

    def once() -> Path:
        snapshot = take_snapshot(location)
        if required is not None and required not in snapshot.files:
            raise NotThere(f"{location} has no {required}")
        names = [name for name in snapshot.files if only is None or only(name)]
        return Mirror(snapshot).fetch(names)

    return _until_it_stays(once, location)


def fetch_file(url: str) -> Path:
    """Return a local copy of the one object at ``url``.

    Raises:
        NotThere: there is none.
        GetiactionError: it cannot be read.
    """
    location = Location.parse(url)
    name = location.key.rpartition("/")[2]
    return (
        _until_it_stays(lambda: Mirror(snapshot_of_object(location)).fetch([name]), location) / name
    )


def _until_it_stays(once: Callable[[], Path], location: Location) -> Path:
    """Begin anew when it is replaced while it is fetched; complain when it just does not fit."""
    seen: list[str] = []
    for _ in range(ROUNDS):
        try:
            return once()
        except (Overtaken, NotThere) as error:
            if isinstance(error, NotThere) and not isinstance(error, Vanished):
                raise
            now = _state(location)
            if seen and seen[-1] == now:
                raise GetiactionError(f"{error}; publish it again") from error
            seen.append(now)
            last = error
    raise GetiactionError(f"{location} changes faster than it can be fetched ({last})")


def _state(location: Location) -> str:
    try:
        return take_snapshot(location).version
    except NotThere:
        return ""


class Vanished(NotThere):
    """An object that was listed is not there."""


@dataclass(frozen=True)
class Kept:
    """A file of the mirror: what it was fetched as, and what it then was on disk."""

    identity: str
    size: int
    mtime_ns: int


class Mirror:
    """One version of what lies at an address, on disk."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.place = place_of(snapshot.location)
        self.version = self.place / snapshot.version
        # Ends in the name that people gave, which some tools show or use.
        name = snapshot.location.key.rpartition("/")[2] or snapshot.location.bucket
        self.directory = self.version / name
        self.kept: dict[str, Kept] = {}
        self.lock = threading.Lock()

    def fetch(self, names: list[str]) -> Path:
        """Return its directory, with these files in it.

        Raises:
            Overtaken, NotThere: a file is not any more what the snapshot says.
            GetiactionError: it cannot be read, or the cache cannot hold it.
        """
        with taking_turns(self.place):
            use(self.version)
            self.directory.mkdir(exist_ok=True)
            self.kept = _read_index(self.version)
            missing = [name for name in names if not self._has(name)]
            if missing:
                self._take_over(missing)
                missing = [name for name in missing if not self._has(name)]
            if missing:
                self._download(missing)
            give_up_others(self.version)
        return self.directory

    def _download(self, names: list[str]) -> None:
        files = self.snapshot.files
        total = sum(files[name].size for name in names)
        make_room(total, str(self.snapshot.location))
        what = f"fetching {self.snapshot.location}"
        with progress(what, len(names), total) as advance:
            in_parallel(lambda name: self._download_one(name, advance), names)

    def _download_one(self, name: str, advance: Callable[[int], None]) -> None:
        file, final = self.snapshot.files[name], self.directory / name
        unfinished = self.version / UNFINISHED / name
        for path in (final, unfinished):
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            receive(file.location, file.stored, unfinished, advance)
        except NotThere as error:
            raise Vanished(str(error)) from error
        os.replace(unfinished, final)
        self._keep(name)

    def _take_over(self, names: list[str]) -> None:
        """Share with older versions what has not changed since."""
        for index in self.place.glob(f"*/{INDEX}"):
            if index.parent == self.version:
                continue
            kept = _read_index(index.parent)
            for name in names:
                source, target = index.parent / self.directory.name / name, self.directory / name
                old = kept.get(name)
                if old and old.identity == self._identity(name) and _is(source, old):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.unlink(missing_ok=True)
                    # The older version may be given up at this moment.
                    with contextlib.suppress(FileNotFoundError):
                        os.link(source, target)
                        self._keep(name)

    def _has(self, name: str) -> bool:
        kept = self.kept.get(name)
        if kept is None or kept.identity != self._identity(name):
            return False
        return _is(self.directory / name, kept)

    def _keep(self, name: str) -> None:
        found = (self.directory / name).stat()
        kept = Kept(self._identity(name), found.st_size, found.st_mtime_ns)
        with self.lock, (self.version / INDEX).open("a") as lines:
            self.kept[name] = kept
            # A process that was killed may have left half a line.
            lines.write(f"\n{json.dumps([name, vars(kept)])}\n")

    def _identity(self, name: str) -> str:
        return self.snapshot.files[name].identity


def _read_index(version: Path) -> dict[str, Kept]:
    path = version / INDEX
    kept: dict[str, Kept] = {}
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            name, fields = json.loads(line)
            kept[name] = Kept(**fields)
        except (ValueError, TypeError):
            continue
    return kept


def _is(path: Path, kept: Kept) -> bool:
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return (found.st_size, found.st_mtime_ns) == (kept.size, kept.mtime_ns)
