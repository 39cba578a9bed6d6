"""Normalisation statistics of a checkpoint, and the check that they are those of its contract."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from positronic.codec import Contract, stats_digest

# By feature: ``mean``, ``std``, ``min``, ``max`` and so on.
Statistics = dict[str, dict[str, NDArray[Any]]]

# Used by LeRobot in place of an image's own mean and deviation.
_IMAGENET = {
    "mean": np.array([0.485, 0.456, 0.406], np.float32),
    "std": np.array([0.229, 0.224, 0.225], np.float32),
}


def parse_statistics(content: bytes) -> Statistics:
    """Parse the content of a normaliser's safetensors file.

    Raises:
        ValueError: It is malformed, or holds numbers that are not finite.
    """
    # Imported late: it takes some ten milliseconds, and a wrong path is to be refused at once.
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(content)
    except (SafetensorError, KeyError, TypeError, AttributeError) as error:  # not a numpy dtype
        raise ValueError(str(error)) from error
    found: Statistics = {}
    for key, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise ValueError(f"{key} is not finite")
        feature, _, statistic = key.rpartition(".")
        found.setdefault(feature, {})[statistic] = tensor
    return found


def changed_features(contract: Contract, stats: Statistics) -> Iterator[str]:
    """Yield the features whose statistics differ from the contract's digests, as far as it has any.

    Images normalised by ImageNet's statistics are skipped: their own are not in the checkpoint.
    """
    replaced = {name for name, values in stats.items() if _is_imagenet(values)}
    if contract.feature_digests is not None:
        for name, digest in contract.feature_digests.items():
            if name not in replaced and stats_digest(stats, [name]) != digest:
                yield name
        return
    whole = None if replaced else contract.stats_digest
    if whole not in (None, stats_digest(stats, contract.features)):
        yield f"one of {', '.join(contract.features)}"


def _is_imagenet(values: Mapping[str, NDArray[Any]]) -> bool:
    return all(
        np.array_equal(values.get(name, np.empty(0)).ravel(), expected)
        for name, expected in _IMAGENET.items()
    )
