"""Local caches below ``$XDG_CACHE_HOME``: entries filled by one process, pinned by locks, evicted.

An entry is a directory. A process that uses it holds a shared lock on a file in it; it is evicted
only while no process does.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from foundation.files import open_lock


def cache_root() -> Path:
    """``$XDG_CACHE_HOME``, which is ``~/.cache`` unless set."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root.expanduser().absolute()


@contextmanager
def exclusive(lock: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold an exclusive lock on the file ``lock``; make its directory if it is missing.

    Args:
        lock: The file.
        on_wait: Called before waiting, if another process holds the lock.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open_lock(lock) as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


def evict(entry: Path, lock: Path) -> bool:
    """Remove an entry, and return True, unless it is gone or a living process holds its lock."""
    try:
        with open_lock(lock, make=False) as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not is_open(held, lock):
                return False
            shutil.rmtree(entry)
    except (BlockingIOError, FileNotFoundError):
        return False
    return True


def is_open(file: IO[bytes], path: Path) -> bool:
    """Return whether ``path`` still names the open file, which may have been replaced."""
    try:
        return os.fstat(file.fileno()).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False
