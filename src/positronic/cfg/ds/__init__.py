"""Datasets by name for the command line: ``--dataset=@positronic.cfg.ds.local``.

Those that select from another dataset take it as ``--dataset``, a config or a path. So they nest,
and the flags of each are prefixed by its position::

    --dataset=@positronic.cfg.ds.filtered --dataset.where.task="stack the cubes"
    --dataset.dataset=@positronic.cfg.ds.split.train
    --dataset.dataset.dataset=~/datasets/stack
"""

import sys
from typing import Annotated, Any

import configuronic as cfn

from foundation.errors import UsageError
from positronic.cfg.components import DATASET
from positronic.cli.kinds import RECORDINGS, found_instead
from positronic.errors import DatasetError

__all__ = ["concat", "filtered", "local", "share"]


@cfn.config()
def local(path: str, grip_open: float | None = None) -> Any:
    """Raw episodes: all datasets under a directory, concatenated.

    Args:
        path: The directory; ~ is the home directory. Or s3://bucket/key, of which each file is
            fetched when it is read; or hf://datasets/USER/NAME, which is fetched whole.
        grip_open: Value of the open grip, 1 or 0, for recordings that do not state it.
    """
    return declared(opened(path), grip_open)


@cfn.config()
def concat(**datasets: Annotated[Any, DATASET]) -> Any:
    """Several datasets, concatenated in the order in which they are given.

    Each has a flag with a name of your choice: --dataset.first=~/monday
    --dataset.second=@positronic.cfg.ds.phail.sim_stack_cubes.

    Args:
        datasets: The datasets, each a config or a path.
    """
    from positronic.dataset import ConcatDataset

    if not datasets:
        raise UsageError("nothing to concatenate: give datasets, such as --dataset.first=~/monday")
    return ConcatDataset(*(opened(dataset) for dataset in datasets.values()))


@cfn.config(dataset=local, where={})
def filtered(dataset: Annotated[Any, DATASET], where: dict[str, Any]) -> Any:
    """The episodes with certain static values; only these values are read.

    Args:
        dataset: The dataset to select from, a config or a path.
        where: Static values to match, such as --dataset.where.task="stack the cubes". A list such
            as [red,blue] matches any of its members, None a missing value.
    """
    from positronic.dataset.subsets import where as having

    if not where:
        raise UsageError(
            "nothing to filter by: give static values, such as --dataset.where.task=stack"
        )
    return having(opened(dataset), where)


@cfn.config(dataset=local)
def share(dataset: Annotated[Any, DATASET], share: float, seed: int = 42) -> Any:
    """A random share of the episodes.

    Args:
        dataset: The dataset to select from, a config or a path.
        share: Share to keep, more than 0 and at most 1.
        seed: The same seed selects the same episodes; a larger share contains a smaller one.
    """
    from positronic.dataset.subsets import share_of

    return share_of(opened(dataset), share, seed)


def opened(dataset: Any, *, nested: bool = True) -> Any:
    """Return a dataset as it is, or open the one at a path; UsageError for anything else."""
    from positronic.dataset import Dataset, load_all_datasets

    if isinstance(dataset, str):
        try:
            found = load_all_datasets(dataset, nested=nested)
        except DatasetError as error:
            raise DatasetError(f"{error}{found_instead(dataset, RECORDINGS)}") from error
        if found.edits is not None and found.edits.dropped:
            print(f"{dataset}: {found.edits.summary(len(found))}", file=sys.stderr)
        return found
    if not isinstance(dataset, Dataset):
        raise UsageError(f"{dataset!r} is not a dataset; give a path or @{__name__}.local")
    return dataset


def declared(dataset: Any, grip_open: float | None) -> Any:
    """The dataset, with its grip convention declared if ``grip_open`` is given."""
    from positronic.dataset.conventions import OPEN_0, OPEN_1, Declared
    from positronic.dataset.transforms import DerivedDataset

    if grip_open is None:
        return dataset
    if grip_open not in (0, 1):
        raise UsageError(f"grip_open={grip_open}: expected 1 or 0")
    return DerivedDataset(dataset, Declared(OPEN_1 if grip_open else OPEN_0), keep=True)
