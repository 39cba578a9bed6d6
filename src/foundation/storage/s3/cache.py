"""Local cache of files fetched from S3: bounded in size, least recently used versions go first.

Below ``$XDG_CACHE_HOME/positronic/s3`` lies a directory for each address and endpoint, and in it
one for each version of what was there; a file of a version never changes. A process that uses a
version holds a lock on it, and only versions that nobody holds are given up.
"""

import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from foundation.errors import StorageError
from foundation.files import open_lock
from foundation.storage.s3.client import endpoint
from foundation.storage.s3.location import Location

SIZE_VARIABLE = "POSITRONIC_CACHE_SIZE"
DEFAULT_SIZE = "50GiB"
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
LOCK = ".in-use"

# How long a count is trusted although other processes may have fetched since.
RECOUNT_S = 30.0

_counted: dict[Path, tuple[float, int]] = {}
# Held until the process ends, by the version's directory; whoever is forked holds them on.
_in_use: dict[Path, IO[bytes]] = {}


def cache_home() -> Path:
    """``positronic/s3`` below ``$XDG_CACHE_HOME``, which is ``~/.cache`` unless set."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home.expanduser().absolute() / "positronic" / "s3"


def cache_size() -> int:
    """How many bytes the cache may hold: ``$POSITRONIC_CACHE_SIZE``, such as ``200GiB``.

    Raises:
        StorageError: that is no size.
    """
    text = os.environ.get(SIZE_VARIABLE) or DEFAULT_SIZE
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise StorageError(f"{SIZE_VARIABLE}={text} is no size; expected such as {DEFAULT_SIZE}")
    return int(float(match[1]) * UNITS[match[2].upper()])


def place_of(location: Location) -> Path:
    """Where the versions of what lies at an address are kept."""
    where = f"{endpoint(location.profile)} {location.bucket}/{location.key}"
    return cache_home() / hashlib.sha256(where.encode()).hexdigest()[:32]


@contextmanager
def taking_turns(place: Path) -> Iterator[None]:
    """Let one process at a time fetch what belongs to an address."""
    place.mkdir(parents=True, exist_ok=True)
    with open_lock(place / ".lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def use(version: Path) -> None:
    """Keep a version from being given up for as long as this process lives."""
    while True:
        version.mkdir(parents=True, exist_ok=True)
        held = _in_use.get(version) or open_lock(version / LOCK)
        fcntl.flock(held, fcntl.LOCK_SH)
        # It may have been given up between the two.
        if _is_open(held, version / LOCK):
            os.utime(version / LOCK)
            _in_use[version] = held
            return
        held.close()
        _in_use.pop(version, None)


def let_go(version: Path) -> None:
    """Let a version be given up again, although this process lives on."""
    held = _in_use.pop(version, None)
    if held is not None:
        held.close()


def make_room(wanted: int, what: str) -> None:
    """Give up what was unused for longest until ``wanted`` more bytes fit.

    Raises:
        StorageError: they do not fit, even then.
    """
    if not _fits(wanted):
        _give_up_until_it_fits(wanted, what)
    free = shutil.disk_usage(cache_home()).free
    if wanted > free:
        raise StorageError(
            f"{what} needs {_gib(wanted)} in {cache_home()}, and the disk has {_gib(free)}; make "
            "room, or let XDG_CACHE_HOME name another disk"
        )


def _fits(wanted: int) -> bool:
    """Whether it fits by the last count; who fetches file by file cannot count all each time."""
    when, held = _counted.get(cache_home(), (float("-inf"), 0))
    if time.monotonic() - when > RECOUNT_S or held + wanted > cache_size():
        return False
    _counted[cache_home()] = (when, held + wanted)
    return True


def _give_up_until_it_fits(wanted: int, what: str) -> None:
    versions = sorted(_versions(), key=_last_use)
    held, limit = _size(versions), cache_size()
    while held + wanted > limit and versions:
        if _give_up(versions.pop(0)):
            versions = [version for version in versions if version.is_dir()]
            held = _size(_versions())
    if held + wanted > limit:
        raise StorageError(
            f"{what} needs {_gib(wanted)} in {cache_home()}, which may hold {_gib(limit)}, and "
            f"{_gib(held)} of that are in use; set {SIZE_VARIABLE} to a larger size"
        )
    _counted[cache_home()] = (time.monotonic(), held + wanted)


def give_up_others(version: Path) -> None:
    """Give up the older versions beside this one that nobody uses."""
    for other in _versions_in(version.parent):
        if other != version:
            _give_up(other)


def _give_up(version: Path) -> bool:
    """Remove a version unless a living process uses it."""
    try:
        with open_lock(version / LOCK, make=False) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_open(lock, version / LOCK):
                return False
            shutil.rmtree(version)
    except (BlockingIOError, FileNotFoundError):
        return False
    return True


def _last_use(version: Path) -> float:
    try:
        return (version / LOCK).stat().st_mtime
    except FileNotFoundError:
        return 0.0  # another process has just given it up


def _versions() -> list[Path]:
    home = cache_home()
    places = [place for place in home.iterdir() if _is_own(place)] if home.is_dir() else []
    return [version for place in places for version in _versions_in(place)]


def _versions_in(place: Path) -> list[Path]:
    return [lock.parent for lock in place.glob(f"*/{LOCK}") if _is_own(lock.parent)]


def _is_own(directory: Path) -> bool:
    """Whether it is a directory of the cache: what a link leads to is not given up."""
    return directory.is_dir() and not directory.is_symlink()


def _size(versions: list[Path]) -> int:
    """Bytes on disk; what two versions share counts once."""
    sizes: dict[int, int] = {}
    for version in versions:
        for directory, _, names in os.walk(version):
            for name in names:
                try:
                    found = os.lstat(os.path.join(directory, name))
                except FileNotFoundError:
                    continue
                sizes[found.st_ino] = found.st_size
    return sum(sizes.values())


def _is_open(file: IO[bytes], path: Path) -> bool:
    try:
        return os.fstat(file.fileno()).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
