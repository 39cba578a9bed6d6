"""Write files and directories to S3 or the disk atomically."""

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from foundation import writable
from foundation.documents import inside
from foundation.errors import PreconditionFailed, StorageError
from foundation.files import sha256_of
from foundation.storage import s3
from foundation.storage.paths import is_remote, local, remote, translated
from foundation.storage.s3 import objects


@translated()
def write_bytes(uri: str | Path, data: bytes, *, if_absent: bool = False) -> None:
    """Write a small file in one step.

    Args:
        uri: The file, local or in S3.
        data: Its content.
        if_absent: Refuse if it exists. Of two concurrent writers one succeeds, so that this claims
            a name.

    Raises:
        StorageError: it exists and ``if_absent``, or it cannot be written.
    """
    taken = f"{uri} exists already"
    if is_remote(uri):
        try:
            objects.write(remote(uri), data, if_absent=if_absent)
        except PreconditionFailed as error:
            raise StorageError(taken) from error
        return
    path = local(uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        os.chmod(file.name, 0o644)
        if not if_absent and path.exists():
            # A hard link cannot replace a file. Renaming the temporary file itself would make its
            # removal fail.
            fresh = Path(f"{file.name}.new")
            os.link(file.name, fresh)
            os.replace(fresh, path)
            return
        try:
            os.link(file.name, path)
        except FileExistsError as error:
            raise StorageError(taken) from error


@translated()
def require_writable(directory: str | Path) -> None:
    """Raise unless a local directory can be written to, or could be made.

    Nothing is made.

    Raises:
        StorageError: it cannot; the message says why, and what to do.
    """
    writable.require_writable(local(directory))


@translated()
def publish(
    directory: str | Path, uri: str | Path, *, replace: bool = False, over: str | None = None
) -> None:
    """Make the files of a local directory the content of ``uri``.

    A reader sees the old content or the new, never a mix; every upload is verified by digest. After
    a kill, publishing again continues where it stopped. Nothing else in S3 is removed.

    Args:
        directory: A local directory.
        uri: A directory in S3 or a local one.
        replace: Whether existing content may be replaced.
        over: The :func:`version` of the content that may be replaced; refused if it has changed
            since. For S3 only.

    Raises:
        StorageError: something else is there, someone else publishes there at the same time, or it
            cannot be written.
    """
    source = local(directory)
    if is_remote(uri):
        s3.publish(source, str(remote(uri)), replace=replace, over=over)
        return
    target = local(uri)
    if not source.is_dir():
        raise StorageError(f"there is no directory {source} to publish")
    if target.exists() and (target.samefile(source) or _content(target) == _content(source)):
        return
    if target.exists() and not replace:
        raise StorageError(
            f"{target} holds something else; choose another name or ask to replace it"
        )
    _copy(source, target)


@translated()
def remove(uri: str | Path, names: Iterable[str]) -> None:
    """Remove exactly the files of these names below ``uri``.

    Raises:
        StorageError: one of them is not there, in which case nothing is removed.
    """
    wanted = sorted(set(names))
    if is_remote(uri):
        s3.remove(str(remote(uri)), wanted)
        return
    directory = local(uri)
    paths = [inside(directory, name) for name in wanted]
    if missing := [n for n, path in zip(wanted, paths, strict=True) if not path.is_file()]:
        raise StorageError(f"{directory} has no {', '.join(missing)}; nothing was removed")
    for path in paths:
        path.unlink()


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        fresh, old = scratch / "new", scratch / "old"
        shutil.copytree(source, fresh)
        if target.exists():
            target.rename(old)
        fresh.rename(target)
    finally:
        shutil.rmtree(scratch)


def _content(directory: Path) -> dict[str, str]:
    return {
        path.relative_to(directory).as_posix(): sha256_of(path)
        for path in directory.rglob("*")
        if path.is_file()
    }
