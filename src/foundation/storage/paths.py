"""Path parsing: tell addresses from local paths, join either, refuse all others."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foundation.documents import InvalidDocument
from foundation.errors import StorageError
from foundation.storage import hub
from foundation.storage.s3 import SCHEME, Location
from foundation.writable import describe


@contextmanager
def translated() -> Iterator[None]:
    """Re-raise ``OSError`` and ``InvalidDocument`` as ``StorageError``."""
    try:
        yield
    except InvalidDocument as error:
        raise StorageError(str(error)) from error
    except OSError as error:
        raise StorageError(describe(error)) from error


def is_remote(path: str | Path) -> bool:
    """Return whether a path is in S3, or on the Hub."""
    # Path("s3://bucket") drops one of the slashes.
    return str(path).startswith("s3:/") or hub.is_hub(path)


def remote(path: str | Path) -> Location:
    """Parse a path in S3.

    Raises:
        StorageError: it is not one.
    """
    if hub.is_hub(path):
        raise StorageError(
            f"{path} is on the Hub, which is only read from; write to a local path or to"
            f" {SCHEME}bucket/key, then push it by `positronic-to-lerobot push`"
        )
    with translated():
        return Location.parse(SCHEME + str(path).removeprefix("s3:").lstrip("/"))


def local(path: str | Path) -> Path:
    """Return a local path, absolute, with ``~`` as the home directory.

    Raises:
        StorageError: it is empty, or an address of another kind.
    """
    if is_remote(path):
        where = "on the Hub" if hub.is_hub(path) else "in S3"
        raise StorageError(f"{path} is {where}; expected a local path")
    if not str(path).strip():
        raise StorageError("a path is empty; expected a directory, or '.' for this one")
    if "://" in str(path):
        raise StorageError(
            f"{path} is not a path for data; expected a local path or {SCHEME}bucket/key"
        )
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise StorageError(f"{path}: {error}") from error


@translated()
def join(base: str | Path, *parts: str) -> str:
    """Return the path of something below ``base``, local or an address.

    Raises:
        StorageError: one of the parts is invalid in S3, such as ``..``.
    """
    if hub.is_hub(base):
        return hub.join(base, *parts)
    if not is_remote(base):
        return str(local(base).joinpath(*parts))
    location = remote(base)
    for part in parts:
        location = location / part.strip("/")
    return str(location)
