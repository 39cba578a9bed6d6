"""Local cache of files fetched from S3: bounded in size, least recently used versions evicted.

Below ``$XDG_CACHE_HOME/positronic/s3`` lies a directory for each address and endpoint, and in it
one for each version of its content; a file of a version never changes. A process that uses a
version holds a lock on it; only unlocked versions are evicted.
"""

import fcntl
import hashlib
import os
import re
import shutil
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

from foundation import cache
from foundation.cache import cache_root, exclusive, is_open
from foundation.errors import StorageError
from foundation.files import open_lock
from foundation.storage.s3.client import endpoint
from foundation.storage.s3.location import Location

SIZE_VARIABLE = "POSITRONIC_CACHE_SIZE"
DEFAULT_SIZE = "50GiB"
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
LOCK = ".in-use"

# How long the counted size is trusted although other processes may have fetched since.
RECOUNT_S = 30.0

_counted: dict[Path, tuple[float, int]] = {}
# Locks held until the process ends, by the version's directory; forked processes keep them.
_in_use: dict[Path, IO[bytes]] = {}


def cache_home() -> Path:
    """``positronic/s3`` below :func:`~foundation.cache.cache_root`."""
    return cache_root() / "positronic" / "s3"


def cache_size() -> int:
    """Return the cache's bound in bytes: ``$POSITRONIC_CACHE_SIZE``, such as ``200GiB``.

    Raises:
        StorageError: that is not a size.
    """
    text = os.environ.get(SIZE_VARIABLE) or DEFAULT_SIZE
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise StorageError(f"{SIZE_VARIABLE}={text} is not a size; expected such as {DEFAULT_SIZE}")
    return int(float(match[1]) * UNITS[match[2].upper()])


def directory_of(location: Location) -> Path:
    """Return the directory that holds the cached versions of an address."""
    where = f"{endpoint(location.profile)} {location.bucket}/{location.key}"
    return cache_home() / hashlib.sha256(where.encode()).hexdigest()[:32]


def fetching(directory: Path) -> AbstractContextManager[None]:
    """Return a lock by which one process at a time fetches into the directory of an address."""
    return exclusive(directory / ".lock")


def pin(version: Path) -> None:
    """Pin a version against eviction until :func:`unpin`, or until this process ends."""
    while True:
        version.mkdir(parents=True, exist_ok=True)
        held = _in_use.get(version) or open_lock(version / LOCK)
        fcntl.flock(held, fcntl.LOCK_SH)
        # It may have been evicted between mkdir and flock.
        if is_open(held, version / LOCK):
            os.utime(version / LOCK)
            _in_use[version] = held
            return
        held.close()
        _in_use.pop(version, None)


def unpin(version: Path) -> None:
    """Allow the eviction of a version that this process has pinned."""
    held = _in_use.pop(version, None)
    if held is not None:
        held.close()


def evict_until_fits(wanted: int, what: str) -> None:
    """Evict the least recently used versions until ``wanted`` more bytes fit.

    Raises:
        StorageError: they still do not fit.
    """
    if not _fits(wanted):
        _evict_oldest(wanted, what)
    free = shutil.disk_usage(cache_home()).free
    if wanted > free:
        raise StorageError(
            f"{what} needs {_gib(wanted)} in {cache_home()}, and the disk has {_gib(free)}; make "
            "room, or let XDG_CACHE_HOME name another disk"
        )


def _fits(wanted: int) -> bool:
    """Return whether it fits by the last count; counting for each file fetched would be slow."""
    when, held = _counted.get(cache_home(), (float("-inf"), 0))
    if time.monotonic() - when > RECOUNT_S or held + wanted > cache_size():
        return False
    _counted[cache_home()] = (when, held + wanted)
    return True


def _evict_oldest(wanted: int, what: str) -> None:
    versions = sorted(_versions(), key=_last_use)
    held, limit = _size(versions), cache_size()
    while held + wanted > limit and versions:
        if _evict(versions.pop(0)):
            versions = [version for version in versions if version.is_dir()]
            held = _size(_versions())
    if held + wanted > limit:
        raise StorageError(
            f"{what} needs {_gib(wanted)} in {cache_home()}, which may hold {_gib(limit)}, and "
            f"{_gib(held)} of that are in use; set {SIZE_VARIABLE} to a larger size"
        )
    _counted[cache_home()] = (time.monotonic(), held + wanted)


def evict_others(version: Path) -> None:
    """Evict the other versions of the same address that are not in use."""
    for other in _versions_in(version.parent):
        if other != version:
            _evict(other)


def _evict(version: Path) -> bool:
    return cache.evict(version, version / LOCK)


def _last_use(version: Path) -> float:
    try:
        return (version / LOCK).stat().st_mtime
    except FileNotFoundError:
        return 0.0  # another process has just evicted it


def _versions() -> list[Path]:
    home = cache_home()
    directories = [found for found in home.iterdir() if _is_own(found)] if home.is_dir() else []
    return [version for directory in directories for version in _versions_in(directory)]


def _versions_in(directory: Path) -> list[Path]:
    return [lock.parent for lock in directory.glob(f"*/{LOCK}") if _is_own(lock.parent)]


def _is_own(directory: Path) -> bool:
    """Return whether it is a directory of the cache; the target of a link is not evicted."""
    return directory.is_dir() and not directory.is_symlink()


def _size(versions: list[Path]) -> int:
    """Return the bytes on disk; files that two versions share (hard links) count once."""
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


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
