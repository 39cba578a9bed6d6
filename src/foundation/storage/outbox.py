"""Outbox: local directory for output that goes to S3, so that a failed upload loses nothing.

Unpublished output lies below ``$XDG_DATA_HOME/positronic/outbox``, which cleaning caches does not
remove. The local copy is deleted once published; if publishing fails it stays, and the message
names it.
"""

import fcntl
import hashlib
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foundation.errors import StorageError
from foundation.files import open_lock
from foundation.storage.listing import exists, listing, version
from foundation.storage.paths import is_remote, local, remote, translated
from foundation.storage.reading import fetch
from foundation.storage.writing import publish, require_writable


@contextmanager
def output_directory(uri: str | Path, *, append: bool = False) -> Iterator[Path]:
    """Yield a local directory to write into; its content is at ``uri`` when the block ends.

    For a local ``uri`` it is that directory itself. For one in S3 it is an outbox directory,
    published when the block ends without an error; after an error it is kept if anything was
    written.

    Args:
        uri: A directory, local or in S3.
        append: Whether something may be in S3 already; it is then copied into the directory. A
            local directory is given as it is: refusing one in use is up to the caller.

    Raises:
        StorageError: something is in S3 and ``append`` is false, an earlier output still waits to
            be published there, it cannot be written to, or publishing failed.
    """
    if is_remote(uri):
        uri = str(remote(uri))
        with _place(uri) as place:
            yield from _filled(place, uri, append)
    else:
        # Checked first: the write may come only after an hour's work.
        require_writable(local(uri))
        yield local(uri)


def _filled(place: Path, uri: str, append: bool) -> Iterator[Path]:
    there = version(uri) if exists(uri) else None
    if there is not None and not append:
        raise StorageError(f"{uri} exists already; choose another --output_dir")
    if there is not None:
        with translated():
            shutil.copytree(fetch(uri), place, dirs_exist_ok=True)
    had = listing(place).keys()
    try:
        yield place
        if listing(place).keys() - had:
            publish(place, uri, replace=there is not None, over=there)
    except BaseException:
        if listing(place).keys() - had:
            print(f"not published yet: {_advice(place, uri)}", file=sys.stderr, flush=True)
        else:
            shutil.rmtree(place)
        raise
    shutil.rmtree(place)


@contextmanager
def _place(uri: str) -> Iterator[Path]:
    """Yield the empty outbox directory of ``uri``, locked for this process."""
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    home = data.expanduser().absolute() / "positronic" / "outbox"
    home = home / hashlib.sha256(uri.encode()).hexdigest()[:16]
    place = home / uri.rpartition("/")[2]
    with translated():
        home.mkdir(parents=True, exist_ok=True)
        lock = open_lock(home / ".lock")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(f"another process on this machine writes to {uri}") from error
        if listing(place):
            raise StorageError(
                f"an earlier output for {uri} was not published yet: {_advice(place, uri)}; or "
                f"remove {place}"
            )
        place.mkdir(exist_ok=True)
        yield place


def _advice(place: Path, uri: str) -> str:
    command = "positronic-storage publish"
    return f"it is in {place}; publish it with {command} " + shlex.join(
        [f"--directory={place}", f"--uri={uri}"]
    )
