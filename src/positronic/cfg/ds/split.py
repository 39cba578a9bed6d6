"""Parts of a dataset by mask: the episodes whose static ``mask.NAME`` is true.

Imported demonstrations bring masks with them (``mask.train``, ``mask.valid``), so that what is
trained on and what is held out is decided once, by those who recorded it.
"""

from typing import Any

import configuronic as cfn

from positronic.errors import DatasetError

PREFIX = "mask."


@cfn.config()
def masked(path: str, mask: str) -> Any:
    """Raw episodes of one mask, such as train.

    Args:
        path: The directory; ``~`` is the home directory.
        mask: The mask's name: episodes whose static mask.NAME is true.
    """
    from positronic.cfg.ds import local

    dataset = local.override(path=path).instantiate()
    return dataset[indices(dataset, mask)]


def indices(dataset: Any, mask: str) -> list[int]:
    """Positions of the mask's episodes; DatasetError, naming the masks there are, if none."""
    chosen = [i for i, episode in enumerate(dataset) if episode.static.get(PREFIX + mask) is True]
    if not chosen:
        known = {key for episode in dataset for key in episode.static if key.startswith(PREFIX)}
        names = ", ".join(sorted(name.removeprefix(PREFIX) for name in known)) or "none"
        raise DatasetError(f"no episode has mask.{mask}; the dataset's masks are: {names}")
    return chosen
