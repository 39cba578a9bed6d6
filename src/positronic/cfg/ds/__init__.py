"""Datasets by name for the command line: ``--dataset=@positronic.cfg.ds.local``."""

from typing import Any

import configuronic as cfn

from positronic.errors import StorageError


@cfn.config()
def local(path: str) -> Any:
    """Raw episodes on this machine, all datasets under a directory joined.

    Args:
        path: The directory; ``~`` is the home directory.
    """
    from positronic.dataset import load_all_datasets

    if "://" in path:
        raise StorageError(f"{path} is not a local path; fetch the dataset first and give its path")
    return load_all_datasets(path)
