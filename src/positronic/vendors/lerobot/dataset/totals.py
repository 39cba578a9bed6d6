"""Statistics of a complete LeRobot dataset, from all of its rows and pixels.

Those of numeric features are computed from the tables, one feature at a time, so that a dataset of
ten million rows takes a few hundred megabytes. Those of cameras are pooled from the episodes' min,
max, mean and std; the pixel counts give the quantiles.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.text import printable
from positronic.errors import DatasetError
from positronic.vendors.lerobot.dataset import statistics
from positronic.vendors.lerobot.dataset.layout import TEXT, array_of, read_table
from positronic.vendors.lerobot.dataset.statistics import PixelCounts, Statistics


def of_dataset(
    root: Path,
    features: Mapping[str, Mapping[str, Any]],
    frames: int,
    moments: Mapping[str, Statistics],
    pixels: Mapping[str, PixelCounts],
) -> dict[str, Statistics]:
    """Return the statistics of the dataset in ``root``, by feature, in order of ``features``.

    Args:
        root: its directory.
        features: as in ``info.json``.
        frames: expected number of rows.
        moments: pooled statistics of its cameras.
        pixels: pixel counts of its cameras; a camera without counts gets no statistics.

    Raises:
        DatasetError: a table cannot be read, or they do not hold ``frames`` rows.
    """
    found: dict[str, Statistics] = {}
    for name, feature in features.items():
        if feature["dtype"] in ("video", "image"):
            if name in pixels:
                found[name] = statistics.of_camera(moments[name], pixels[name])
        elif feature["dtype"] not in TEXT:
            found[name] = of_feature(root, name, feature, frames)
    return found


def of_feature(root: Path, name: str, feature: Mapping[str, Any], frames: int) -> Statistics:
    """Return the statistics of one numeric feature over all rows; see `of_dataset`."""
    return statistics.of_vectors(rows_of(root, name, feature, frames))


def rows_of(root: Path, name: str, feature: Mapping[str, Any], frames: int) -> NDArray[Any]:
    """Return all rows of one numeric feature, ``(T, *shape)`` or ``(T,)``; see `of_dataset`."""
    files = sorted(path.relative_to(root).as_posix() for path in root.glob("data/*/*.parquet"))
    parts = [
        read_table(root, file, lambda table: array_of(table, name, feature), only=[name])
        for file in files
    ]
    rows = sum(len(part) for part in parts)
    if rows != frames or rows == 0:
        raise DatasetError(
            f"data: holds {rows} rows of {printable(name)}, expected {frames}; see verify"
        )
    return np.concatenate(parts)
