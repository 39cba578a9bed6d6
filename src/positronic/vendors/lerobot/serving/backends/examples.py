"""Example observations in a checkpoint, for comparing backends with its policy."""

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
    """Write a few rows, spread evenly over a dataset; the same ones each time.

    Args:
        directory: A ``pretrained_model`` that is being written.
        dataset: A ``LeRobotDataset``, or one with the same samples.
        keys: Input features of the policy.
    """
    rows = np.unique(np.linspace(0, len(dataset) - 1, COUNT).round().astype(int))
    samples = [dataset[int(row)] for row in rows]
    stacked = {key: np.stack([_encoded(sample[key]) for sample in samples]) for key in keys}
    save_file(stacked, directory / FILE_NAME)


def load(directory: Path, features: Mapping[str, Mapping[str, Any]]) -> Observations | None:
    """Return the examples, stacked for `Backend.predict_chunk`; None if missing or invalid.

    Args:
        directory: The checkpoint's ``pretrained_model``.
        features: Input features of the policy, as its codec declares them.
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
    """Return a sample's value in the codec's form: images (H, W, 3), and no history."""
    array: NDArray[Any] = np.asarray(value)
    if array.ndim >= 3:
        image = array[-1] if array.ndim == 4 else array
        if image.dtype != np.uint8:
            image = (image * 255).round().astype(np.uint8)
        return np.ascontiguousarray(image.transpose(1, 2, 0))
    return np.ascontiguousarray(array[-1] if array.ndim == 2 else array, dtype=np.float32)
