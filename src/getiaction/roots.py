"""Locate a LeRobot dataset and read its ``meta/info.json`` without importing LeRobot."""

from pathlib import Path

from foundation.documents import Reader
from foundation.errors import NotFound
from foundation.writable import describe
from getiaction.dataset_info import DatasetInfo, parse_info
from getiaction.errors import GetiactionError

INFO = Path("meta/info.json")
# Of LeRobot's datasets on the Hub: LeRobot reads the tag of its format's version, not ``main``.
VERSION_TAG = "v3.0"
READER = Reader(error=GetiactionError, allow_nan=True)


def local_root(root: str | Path) -> Path:
    """Return the local directory of the dataset at ``root``, fetched if necessary.

    Args:
        root: A directory, ``~`` allowed, ``s3://bucket/prefix``, or ``hf://datasets/USER/NAME``.

    Raises:
        GetiactionError: it is an address of another kind, or no dataset is there.
        StorageError: it cannot be fetched.
    """
    text = str(root)
    # Path("s3://bucket") drops one of the slashes.
    if text.startswith(("s3:/", "hf:/")):
        from foundation import storage

        url = storage.join(text)
        place = pinned_dataset(url)
        try:
            return storage.fetch(place, required=INFO.as_posix())
        except NotFound as error:
            raise GetiactionError(
                f"{url} is not a LeRobot dataset: {error}; expected what a conversion wrote"
            ) from error
    if "://" in text:
        raise GetiactionError(
            f"{text} is not a path for a dataset; expected a local directory, s3://bucket/prefix or"
            " hf://datasets/USER/NAME"
        )
    return Path(root).expanduser()


def pinned_dataset(root: str) -> str:
    """Return a dataset's address on the Hub at the commit that LeRobot reads; others as they are.

    Raises:
        StorageError: there is no such repository, or no access to it.
    """
    from foundation import storage

    return storage.pinned(root, prefer=VERSION_TAG)


def require_dataset(root: str | Path) -> DatasetInfo:
    """Return ``meta/info.json`` of the LeRobot v3 dataset at ``root``.

    Raises:
        GetiactionError: there is none, it is of an older format, or empty.
    """
    root = Path(root)
    if not root.is_dir():
        raise GetiactionError(f"there is no dataset at {root}: the directory does not exist")
    try:
        content = READER.read(root / INFO)
    except FileNotFoundError:
        raise GetiactionError(
            f"{root} is not a LeRobot dataset: it has no {INFO}; expected what a conversion wrote"
        ) from None
    except OSError as error:
        raise GetiactionError(f"{root / INFO} cannot be read: {describe(error)}") from error
    info = parse_info(content, str(root / INFO), READER)
    if not info.total_episodes or not info.total_frames:
        raise GetiactionError(f"the dataset at {root} is empty: it has no episodes to train on")
    return info
