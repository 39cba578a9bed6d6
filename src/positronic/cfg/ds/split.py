"""Dataset splits by name for the command line: training, validation, recorded masks.

``train`` and ``val`` split the episodes at random by a seed. ``masked`` selects by masks that were
recorded with the episodes, such as ``mask.train`` and ``mask.valid`` of imported demonstrations.
"""

from typing import Annotated, Any

import configuronic as cfn

from foundation.errors import UsageError
from foundation.text import printable
from positronic.cfg.components import DATASET
from positronic.cfg.ds import local, opened
from positronic.errors import DatasetError

__all__ = ["masked", "train", "val"]

PREFIX = "mask."


@cfn.config(dataset=local)
def train(dataset: Annotated[Any, DATASET], val_share: float = 0.1, seed: int = 42) -> Any:
    """The training episodes: all except those of @positronic.cfg.ds.split.val.

    Args:
        dataset: The dataset to split, a config or a path.
        val_share: Share of the episodes to hold out.
        seed: With the same seed and share the two parts never overlap.
    """
    from positronic.dataset.subsets import split

    return split(opened(dataset), val_share, seed)[0]


@cfn.config(dataset=local)
def val(dataset: Annotated[Any, DATASET], val_share: float = 0.1, seed: int = 42) -> Any:
    """The validation episodes, held out from @positronic.cfg.ds.split.train.

    Args:
        dataset: The dataset to split, a config or a path.
        val_share: Share of the episodes to hold out.
        seed: With the same seed and share the two parts never overlap.
    """
    from positronic.dataset.subsets import split

    return split(opened(dataset), val_share, seed)[1]


@cfn.config()
def masked(mask: str, path: str | None = None, dataset: Annotated[Any, DATASET] = None) -> Any:
    """Raw episodes of one mask, such as train.

    Args:
        mask: The mask's name: episodes whose static mask.NAME is true.
        path: The directory or s3://bucket/key that the episodes are in; ~ is the home directory.
        dataset: Instead of a path, another config to select from.
    """
    if (path is None) == (dataset is None):
        raise UsageError("masked: give either --dataset.path=... or --dataset.dataset=@...")
    source = opened(dataset if path is None else path)
    return source[indices(source, mask)]


def indices(dataset: Any, mask: str) -> list[int]:
    """Positions of the mask's episodes, and of those that cannot be read, which might belong to it.

    DatasetError, naming the existing masks, if no episode has the mask.
    """
    from positronic.dataset.subsets import described

    static = described(dataset)
    chosen = [i for i, has in static.items() if has is None or has.get(PREFIX + mask) is True]
    if all(static[i] is None for i in chosen):
        keys = {key for has in static.values() for key in has or () if key.startswith(PREFIX)}
        names = ", ".join(sorted(name.removeprefix(PREFIX) for name in keys)) or "none"
        raise DatasetError(
            f"no episode has mask.{mask}; the dataset's masks are: {printable(names)}"
        )
    return chosen
