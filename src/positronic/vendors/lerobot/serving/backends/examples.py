"""Example observations in a checkpoint, by which other backends are compared with its policy."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as parse
from safetensors.numpy import save_file

from foundation.documents import InvalidDocument, Reader

FILE_NAME = "examples.safetensors"
COUNT = 4
_READER = Reader(size=256 << 20)

type Observations = dict[str, NDArray[Any]]


def save(directory: Path, dataset: Any, keys: Iterable[str]) -> None:
    """Write the same few rows of a dataset, spread over all of it.

    Args:
        directory: A ``pretrained_model`` that is being written.
        dataset: LeRobot's, or one that gives the same samples.
        keys: Features that the policy looks at.
    """
    rows = np.unique(np.linspace(0, len(dataset) - 1, COUNT).round().astype(int))
    samples = [dataset[int(row)] for row in rows]
    stacked = {key: np.stack([_encoded(sample[key]) for sample in samples]) for key in keys}
    save_file(stacked, directory / FILE_NAME)


def load(directory: Path, features: Mapping[str, Mapping[str, Any]]) -> Observations | None:
    """Read them, stacked as `Backend.predict_chunk` takes them; None where there are none.

    Args:
        directory: The checkpoint's ``pretrained_model``.
        features: Those that the policy looks at, as its codec makes them.
    """
    try:
        found = parse(_READER.read(directory / FILE_NAME))
    except (OSError, InvalidDocument, SafetensorError, KeyError, TypeError, AttributeError):
        return None
    for key, feature in features.items():
        shape = tuple(feature["shape"])
        dtype = np.uint8 if len(shape) == 3 else np.float32
        if key not in found or found[key].shape[1:] != shape or found[key].dtype != dtype:
            return None
    observations = {key: found[key] for key in features}
    counts = {len(rows) for rows in observations.values()}
    finite = all(np.isfinite(rows).all() for rows in observations.values())
    return observations if finite and len(counts) == 1 and counts != {0} else None


def _encoded(value: Any) -> NDArray[Any]:
    """What a codec makes of the same moment: images as (H, W, 3), and no history."""
    array: NDArray[Any] = np.asarray(value)
    if array.ndim >= 3:
        image = array[-1] if array.ndim == 4 else array
        if image.dtype != np.uint8:
            image = (image * 255).round().astype(np.uint8)
        return np.ascontiguousarray(image.transpose(1, 2, 0))
    return np.ascontiguousarray(array[-1] if array.ndim == 2 else array, dtype=np.float32)
