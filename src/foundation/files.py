"""Open, lock, replace and hash files; in shared directories without following symbolic links."""

import errno
import hashlib
import os
import secrets
import stat
from pathlib import Path
from typing import IO


def open_lock(path: Path, *, make: bool = True) -> IO[bytes]:
    """Open a file to lock, without changing its content.

    Args:
        path: A regular file of this program.
        make: Whether to create it if it is missing.

    Raises:
        OSError: it is a symbolic link, which might point to anybody's file, or not a regular file;
            or it cannot be opened.
    """
    return os.fdopen(lock_descriptor(path, make=make), "r+b", buffering=0)


def lock_descriptor(path: Path, *, make: bool = True) -> int:
    """Open a file to lock, as :func:`open_lock` does, and return its descriptor."""
    return _open(path, os.O_RDWR | (os.O_CREAT if make else 0))


def open_to_append(path: Path) -> IO[bytes]:
    """Open a file for appending, created if missing, as :func:`open_lock` does."""
    return os.fdopen(_open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab")


def replace_text(path: Path, text: str) -> None:
    """Replace a file atomically: readers see all of it or the old one, also after a power cut.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    # A random name that must not exist: nobody can have put a link there.
    staged = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        staged.replace(path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Flush a file, or the names in a directory, to the disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open(path: Path, flags: int) -> int:
    # O_NONBLOCK: opening a pipe without a reader would block.
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        raise _not_regular(path) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _not_regular(path)
    return descriptor


def _not_regular(path: Path) -> OSError:
    what = "a symbolic link" if path.is_symlink() else "not a regular file"
    return OSError(
        errno.EINVAL,
        f"it is {what}; expected a file that this program keeps, so remove it",
        str(path),
    )
