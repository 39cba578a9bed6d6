"""Exact normalisation statistics of one episode, in LeRobot's layout.

LeRobot samples some of the frames, thins their pixels and sums in float32. Here every row and
every pixel counts: vectors in float64, images through a histogram of their 256 values, which is
also a hundred times faster.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTILES = (0.01, 0.10, 0.50, 0.90, 0.99)

Statistics = dict[str, NDArray[Any]]


def quantile_names() -> list[str]:
    """What LeRobot calls them: ``q01`` and so on."""
    return [f"q{round(q * 100):02d}" for q in QUANTILES]


def of_vectors(rows: NDArray[Any]) -> Statistics:
    """Statistics ``(n,)`` of the rows ``(T, n)``, or ``(1,)`` of scalars ``(T,)``."""
    values = rows.reshape(len(rows), -1).astype(np.float64)
    found = {
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "mean": values.mean(axis=0),
        "std": values.std(axis=0),
        "count": np.array([len(values)]),
    }
    quantiles = np.quantile(values, QUANTILES, axis=0)
    return found | dict(zip(quantile_names(), quantiles, strict=True))


class ImageStatistics:
    """Counts the pixel values of a camera, frame by frame."""

    def __init__(self) -> None:
        self._counts = np.zeros((3, 256))  # whole numbers, exact in float64 up to 2**53
        self._frames = 0

    def add(self, image: NDArray[np.uint8]) -> None:
        """Count one image ``(H, W, 3)``."""
        import cv2

        for channel in range(3):
            # float32 counts are exact below 2**24, four times a 4K frame's half
            counts = cv2.calcHist([image], [channel], None, [256], [0, 256])
            self._counts[channel] += counts[:, 0]
        self._frames += 1

    def result(self) -> Statistics:
        """Statistics ``(3, 1, 1)`` of the values scaled to 0..1; ``count`` is in images."""
        value = np.arange(256) / 255.0
        pixels = self._counts.sum(axis=1, keepdims=True)
        share = self._counts / pixels
        mean = share @ value
        variance = (share * (value - mean[:, np.newaxis]) ** 2).sum(axis=1)
        seen = self._counts > 0
        cumulative = np.cumsum(self._counts, axis=1)
        found = {
            "min": value[seen.argmax(axis=1)],
            "max": value[255 - seen[:, ::-1].argmax(axis=1)],
            "mean": mean,
            "std": np.sqrt(variance),
        }
        for name, q in zip(quantile_names(), QUANTILES, strict=True):
            found[name] = value[(cumulative >= np.ceil(q * pixels)).argmax(axis=1)]
        shaped = {name: array.reshape(3, 1, 1) for name, array in found.items()}
        return shaped | {"count": np.array([self._frames])}
