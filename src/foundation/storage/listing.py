"""List files and directories, local, in S3 or on the Hub, without reading their content."""

from dataclasses import dataclass
from pathlib import Path

from foundation.errors import NotFound, StorageError
from foundation.storage import hub
from foundation.storage.paths import is_remote, local, remote, translated
from foundation.storage.s3 import list_children, read_manifest, take_snapshot
from foundation.storage.s3.manifest import MANIFEST, STAGED
from foundation.storage.s3.objects import head, list_objects


@dataclass(frozen=True)
class Entry:
    """A file: its size in bytes, and its SHA-256 if the manifest has one."""

    size: int
    sha256: str | None = None


@translated()
def exists(uri: str | Path) -> bool:
    """Return whether a file or directory of that name exists, even an unfinished one."""
    if hub.is_hub(uri):
        return hub.exists(uri)
    if not is_remote(uri):
        return local(uri).exists()
    location = remote(uri)
    return head(location) is not None or bool(list_objects(location, at_most=1))


@translated()
def is_whole(uri: str | Path) -> bool:
    """Return whether it exists and is complete: not if its publication was stopped."""
    in_s3 = is_remote(uri) and not hub.is_hub(uri)
    manifest = read_manifest(remote(uri)) if in_s3 else None
    return exists(uri) if manifest is None else manifest.whole


@translated()
def listing(uri: str | Path) -> dict[str, Entry]:
    """Return the files of a directory by relative name; empty if there is none.

    A published directory is listed by its manifest, any other by its objects or files.

    Raises:
        StorageError: its publication was stopped, or it cannot be listed.
    """
    if hub.is_hub(uri):
        return {name: Entry(size) for name, size in sorted(hub.files(uri).items())}
    if is_remote(uri):
        try:
            snapshot = take_snapshot(remote(uri))
        except NotFound:
            return {}
        return {name: Entry(file.size, file.stored.sha256) for name, file in snapshot.files.items()}
    directory = local(uri)
    if directory.exists() and not directory.is_dir():
        raise StorageError(f"{directory} is a file; expected a directory")
    return {
        path.relative_to(directory).as_posix(): Entry(path.stat().st_size)
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


@translated()
def version(uri: str | Path) -> str:
    """Return a version string of a directory in S3 or on the Hub, which changes with any file.

    Raises:
        StorageError: nothing is there, its publication was stopped, or it cannot be listed.
    """
    if hub.is_hub(uri):
        return str(hub.pinned(uri).revision)
    return take_snapshot(remote(uri)).version


def pinned(uri: str | Path, *, prefer: str | None = None) -> str:
    """Return an address on the Hub at the commit that it has now; any other path as it is.

    Args:
        uri: A directory, local or an address.
        prefer: A tag of the Hub to take, if there is one, where the address names no revision.

    Raises:
        StorageError: there is no such repository or revision, or no access to it.
    """
    return hub.address(hub.pinned(uri, prefer)) if hub.is_hub(uri) else str(uri)


@translated()
def children(uri: str | Path) -> list[str]:
    """Return the sorted names one level below a directory; none if it does not exist."""
    if hub.is_hub(uri):
        return sorted({name.partition("/")[0] for name in listing(uri)})
    if is_remote(uri):
        return [name for name in list_children(remote(uri)) if name not in (MANIFEST, STAGED)]
    directory = local(uri)
    return sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []
