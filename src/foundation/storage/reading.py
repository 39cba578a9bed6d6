"""Read files and directories at a path, local, in S3 or on the Hub, as local files."""

from collections.abc import Callable
from pathlib import Path

from foundation.documents import Reader
from foundation.errors import StorageError
from foundation.storage import hub, s3
from foundation.storage.paths import is_remote, local, remote, translated
from foundation.storage.s3 import objects

_SMALL = Reader(error=StorageError, mend="expected a small file", size=256 << 20)


@translated()
def fetch(
    uri: str | Path, *, only: Callable[[str], bool] | None = None, required: str | None = None
) -> Path:
    """Return a local directory with the files at ``uri``.

    From S3, files missing in the cache are fetched, each verified by its digest; all are of one
    version, and are not evicted while this process lives. From the Hub they are fetched into its
    own cache. A local directory is returned as it is.

    Args:
        uri: A directory, local or an address.
        only: Predicate of the relative names to fetch; others may be there as well. None for all.
        required: A relative name that must exist.

    Raises:
        StorageError: nothing is there, or not ``required``; its publication was stopped; it cannot
            be read.
    """
    if hub.is_hub(uri):
        return hub.fetch(uri, only=only, required=required)
    if is_remote(uri):
        return s3.fetch(str(remote(uri)), only=only, required=required)
    directory = local(uri)
    if directory.is_file():
        raise StorageError(f"{directory} is a file; expected a directory")
    if not directory.is_dir():
        raise StorageError(f"there is no directory {directory}")
    if required is not None and not (directory / required).is_file():
        raise StorageError(f"{directory} has no {required}")
    return directory


@translated()
def fetch_file(uri: str | Path) -> Path:
    """Return a local copy of the file at ``uri``; a local file is returned as it is.

    Raises:
        StorageError: there is none, or it cannot be read.
    """
    if hub.is_hub(uri):
        return hub.fetch_file(uri)
    if is_remote(uri):
        return s3.fetch_file(str(remote(uri)))
    path = local(uri)
    if not path.is_file():
        raise StorageError(f"there is no file {path}")
    return path


@translated()
def read_bytes(uri: str | Path) -> bytes:
    """Return the content of a small file, of up to 256 MiB.

    Raises:
        StorageError: there is none, it is larger, or it cannot be read.
    """
    if not is_remote(uri) or hub.is_hub(uri):
        return _SMALL.read(fetch_file(uri))
    found = objects.read(remote(uri), at_most=_SMALL.size)
    if found is None:
        raise StorageError(f"there is no file {uri}")
    return found[0]
