"""Datasets by name for the command line: ``--dataset=@positronic.cfg.ds.local``.

Those that choose from others take them in ``--dataset``, a config or simply a path; so they nest,
and each writes its own flags after its own name::

    --dataset=@positronic.cfg.ds.filtered --dataset.where.task="stack the cubes"
    --dataset.dataset=@positronic.cfg.ds.split.train
    --dataset.dataset.dataset=~/datasets/stack
"""

from typing import Any

import configuronic as cfn

from foundation.errors import UsageError

__all__ = ["concat", "filtered", "local", "share"]


@cfn.config()
def local(path: str, grip_open: float | None = None) -> Any:
    """Raw episodes, all datasets under a directory joined.

    Args:
        path: The directory; ~ is the home directory. Or s3://bucket/key, which is fetched file by
            file when it is read.
        grip_open: What the grip counts when it is open, 1 or 0, for recordings that do not say so
            themselves.
    """
    return declared(opened(path), grip_open)


@cfn.config()
def concat(**datasets: Any) -> Any:
    """Several datasets, one after the other, in the order they are given.

    Each has a flag with a name of your choice: --dataset.first=~/monday
    --dataset.second=@positronic.cfg.ds.phail.sim_stack_cubes.

    Args:
        datasets: The datasets, each a config or a path.
    """
    from positronic.dataset import ConcatDataset

    if not datasets:
        raise UsageError("nothing to concatenate: give datasets, as --dataset.first=~/monday")
    return ConcatDataset(*(opened(dataset) for dataset in datasets.values()))


@cfn.config(dataset=local, where={})
def filtered(dataset: Any, where: dict[str, Any]) -> Any:
    """Only episodes with certain static values; nothing else of them is read.

    Args:
        dataset: The dataset to choose from, a config or a path.
        where: What to ask for, such as --dataset.where.task="stack the cubes". A list as in
            [red,blue] asks for one of several, None for episodes without such a value.
    """
    from positronic.dataset.subsets import where as having

    if not where:
        raise UsageError("nothing to filter by: give static values, as --dataset.where.task=stack")
    return having(opened(dataset), where)


@cfn.config(dataset=local)
def share(dataset: Any, share: float, seed: int = 42) -> Any:
    """A random share of the episodes.

    Args:
        dataset: The dataset to choose from, a config or a path.
        share: How much of it, more than 0 and at most 1.
        seed: The same seed chooses the same episodes; with it a larger share contains a smaller.
    """
    from positronic.dataset.subsets import share_of

    return share_of(opened(dataset), share, seed)


def opened(dataset: Any, *, nested: bool = True) -> Any:
    """A dataset itself, or the one at a path; UsageError for anything else."""
    from positronic.dataset import Dataset, load_all_datasets

    if isinstance(dataset, str):
        return load_all_datasets(dataset, nested=nested)
    if not isinstance(dataset, Dataset):
        raise UsageError(f"{dataset!r} is not a dataset; give a path or @{__name__}.local")
    return dataset


def declared(dataset: Any, grip_open: float | None) -> Any:
    """The dataset with its grip's convention stated where it does not say one."""
    from positronic.dataset.conventions import OPEN_0, OPEN_1, Declared
    from positronic.dataset.transforms import DerivedDataset

    if grip_open is None:
        return dataset
    if grip_open not in (0, 1):
        raise UsageError(f"grip_open={grip_open}: expected 1 or 0")
    return DerivedDataset(dataset, Declared(OPEN_1 if grip_open else OPEN_0), keep=True)
