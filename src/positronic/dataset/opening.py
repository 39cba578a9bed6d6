"""Open every dataset under a path, local or in S3, as one dataset."""

import os
from collections import deque
from pathlib import Path

from positronic.dataset.dataset import ConcatDataset, Dataset
from positronic.dataset.edits import EDITS, Log, edited, read_log
from positronic.dataset.local import (
    LocalDataset,
    directories,
    finished,
    no_episodes,
    require_directory,
)
from positronic.dataset.recorded import is_number


def load_all_datasets(root: str | Path, *, nested: bool = True) -> Dataset:
    """Open every dataset in the tree under ``root``, concatenated, nearest first, then by name.

    Hidden directories are not searched; edit logs are applied. For ``s3://`` the objects are
    listed, and each file is fetched when it is read; a repository on the Hub is fetched whole.

    Args:
        root: a directory, ``~`` allowed, ``s3://bucket/key``, or ``hf://datasets/USER/NAME``.
        nested: also search below a directory that holds episodes.

    Raises:
        DatasetError: there are no finished episodes, or edit logs drop all of them.
        StorageError: the URL's scheme is not supported, or it cannot be read.
    """
    # Imported late: worker processes get an open dataset, and start faster without it.
    from foundation import storage

    if storage.is_hub(root):
        found, unfinished = _local(storage.fetch(root), nested)
    elif storage.is_remote(root):
        from positronic.dataset.remote import remote_datasets

        found, unfinished = remote_datasets(str(root), nested)
    else:
        found, unfinished = _local(storage.local(root), nested)
    if not found:
        raise no_episodes(root, unfinished)
    dataset = found[0] if len(found) == 1 else ConcatDataset(*found)
    if len(dataset) == 0:
        raise no_episodes(root, unfinished, dropped=True)
    return dataset


def _local(top: Path, nested: bool) -> tuple[list[Dataset], int]:
    """The datasets, and the number of unfinished episodes, which are skipped."""
    require_directory(top)
    found: list[Dataset] = []
    unfinished = 0
    queue = deque([(top, tuple[Log, ...]())])
    seen: set[tuple[int, int]] = set()
    while queue:
        directory, logs = queue.popleft()
        status = directory.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue  # a symbolic link to a visited directory: its episodes would count twice
        seen.add((status.st_dev, status.st_ino))
        if os.path.lexists(log := directory / EDITS):
            logs = (read_log(log, str(log)), *logs)
        episodes, skipped = finished(directory)
        unfinished += skipped
        if episodes:
            dataset = LocalDataset(directory)
            found.append(edited(dataset, logs, dataset.logs()))
            if not nested:
                continue
        inner = [name for name in directories(directory) if not is_number(name)]
        inner = [name for name in inner if not name.startswith(".")]
        queue.extend((directory / name, logs) for name in inner)
    return found, unfinished
