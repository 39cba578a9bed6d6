"""``positronic-storage``: list and fetch files in S3 and on the Hub, publish and remove in S3."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import configuronic as cfn

from foundation import storage
from foundation.errors import StorageError
from positronic import cli
from positronic.cli.values import names

PROG = "positronic-storage"


@cfn.config()
def ls(uri: str, all: bool = False) -> None:
    """List what is in a directory.

    Example:
        positronic-storage ls s3://bucket/datasets

    Args:
        uri: A directory, local, s3://bucket/key or hf://[datasets/]USER/NAME.
        all: List all files below it with their sizes in bytes, not only the names in it.
    """
    if not storage.exists(uri):
        raise StorageError(f"there is nothing at {uri}")
    if all:
        for name, entry in storage.listing(uri).items():
            print(f"{entry.size:>14,}  {name}")
        return
    found = storage.children(uri)
    with ThreadPoolExecutor(8) as pool:
        notes = pool.map(lambda name: _note(storage.join(uri, name)), found)
        for name, note in zip(found, notes, strict=True):
            print(f"{name}{note}")


def _note(uri: str) -> str:
    try:
        return "" if storage.is_whole(uri) else "  (unfinished)"
    except StorageError:  # one unreadable entry does not affect the others
        return "  (unreadable)"


@cfn.config()
def fetch(uri: str, directory: str) -> None:
    """Copy a directory from S3, each file verified by its digest, or from the Hub.

    Example:
        positronic-storage fetch s3://bucket/datasets/stack ./stack

    Args:
        uri: A directory, s3://bucket/key or hf://[datasets/]USER/NAME.
        directory: A new local directory.
    """
    target = storage.local(directory)
    if target.exists():
        raise StorageError(f"{target} exists already; choose another --directory")
    storage.publish(storage.fetch(uri), target)
    print(target)


@cfn.config()
def publish(directory: str, uri: str, replace: bool = False) -> None:
    """Upload a directory; run it again if it was interrupted. Readers see all of it or nothing.

    Example:
        positronic-storage publish ./stack s3://bucket/datasets/stack

    Args:
        directory: A local directory.
        uri: Where to, s3://bucket/key.
        replace: Replace other content that is there.
    """
    storage.publish(directory, uri, replace=replace)
    print(uri)


@cfn.config()
def remove(uri: str, files: Sequence[str] | str = ()) -> None:
    """Remove files by name.

    Example:
        positronic-storage remove s3://bucket/datasets/stack --files=a.mp4,b.mp4

    Args:
        uri: A directory, local or s3://bucket/key.
        files: Names below it, separated by commas.
    """
    wanted = names(files)
    storage.remove(uri, wanted)
    for name in wanted:
        print(f"removed {storage.join(uri, name)}")


def main() -> NoReturn:
    """Run the command line."""
    cli.run({"ls": ls, "fetch": fetch, "publish": publish, "remove": remove}, PROG)


if __name__ == "__main__":
    main()
