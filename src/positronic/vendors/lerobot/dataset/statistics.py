"""Exact normalisation statistics in LeRobot's layout, per episode and per dataset.

LeRobot samples some of the frames, subsamples their pixels, sums in float32 and averages the
episodes' quantiles. Here every row and every pixel counts: vectors in float64, images through a
histogram of their 256 values, which is also a hundred times faster and adds up over episodes
without loss.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTILES = (0.01, 0.10, 0.50, 0.90, 0.99)
MOMENTS = ("min", "max", "mean", "std")
# float64 values processed at once: 64 MiB, and some copies of them.
AT_ONCE = 1 << 23

Statistics = dict[str, NDArray[Any]]
# How often a channel of a camera (3) has each of the values (256), int64.
PixelCounts = NDArray[np.int64]


def quantile_names() -> list[str]:
    """Return LeRobot's names of the quantiles: ``q01`` and so on."""
    return [f"q{round(q * 100):02d}" for q in QUANTILES]


def of_vectors(rows: NDArray[Any]) -> Statistics:
    """Return statistics ``(n,)`` of rows ``(T, n)``, or ``(1,)`` of scalars ``(T,)``.

    For rows ``(T, ..., n)`` they are over all axes but the last, as in LeRobot.
    """
    values = rows.reshape(-1, rows.shape[-1] if rows.ndim > 1 else 1)
    step = max(1, AT_ONCE // max(1, len(values)))
    parts = [
        _of_columns(values[:, start : start + step].astype(np.float64))
        for start in range(0, values.shape[1], step)
    ]
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return found | {"count": np.array([len(rows)])}


def _of_columns(values: NDArray[np.float64]) -> Statistics:
    found = {
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "mean": values.mean(axis=0),
        "std": values.std(axis=0),
    }
    quantiles = np.quantile(values, QUANTILES, axis=0, overwrite_input=True)
    return found | dict(zip(quantile_names(), quantiles, strict=True))


class ImageStatistics:
    """Counts the pixel values of a camera, frame by frame.

    Attributes:
        counts: int64 ``(3, 256)``.
        frames: number of images.
    """

    def __init__(self) -> None:
        self.counts: PixelCounts = np.zeros((3, 256), dtype=np.int64)
        self.frames = 0

    def add(self, image: NDArray[np.uint8]) -> None:
        """Count one image ``(H, W, 3)``."""
        import cv2

        for channel in range(3):
            # float32 counts are exact below 2**24, four times a 4K frame's half
            counts = cv2.calcHist([image], [channel], None, [256], [0, 256])
            self.counts[channel] += counts[:, 0].astype(np.int64)
        self.frames += 1

    def result(self) -> Statistics:
        """Return statistics ``(3, 1, 1)`` of the values scaled to 0..1; ``count`` is in images."""
        return of_pixels(self.counts, self.frames)


def of_pixels(counts: PixelCounts, frames: int) -> Statistics:
    """Statistics ``(3, 1, 1)`` of pixels ``counts`` ``(3, 256)``, scaled to 0..1, of ``frames``."""
    value = np.arange(256) / 255.0
    pixels = counts.sum(axis=1, keepdims=True)
    share = counts / pixels
    mean = share @ value
    variance = (share * (value - mean[:, np.newaxis]) ** 2).sum(axis=1)
    seen = counts > 0
    cumulative = np.cumsum(counts, axis=1)
    found = {
        "min": value[seen.argmax(axis=1)],
        "max": value[255 - seen[:, ::-1].argmax(axis=1)],
        "mean": mean,
        "std": np.sqrt(variance),
    }
    for name, q in zip(quantile_names(), QUANTILES, strict=True):
        found[name] = value[(cumulative >= np.ceil(q * pixels)).argmax(axis=1)]
    shaped = {name: array.reshape(3, 1, 1) for name, array in found.items()}
    return shaped | {"count": np.array([frames])}


def pooled(one: Statistics | None, other: Statistics) -> Statistics:
    """Return pooled min, max, mean, std and count of two samples; quantiles cannot be pooled."""
    if one is None:
        return {name: other[name] for name in (*MOMENTS, "count")}
    total = one["count"] + other["count"]
    share = float(other["count"][0] / total[0])
    apart = other["mean"] - one["mean"]
    variance = one["std"] ** 2 * (1 - share) + other["std"] ** 2 * share
    return {
        "min": np.minimum(one["min"], other["min"]),
        "max": np.maximum(one["max"], other["max"]),
        "mean": one["mean"] + apart * share,
        "std": np.sqrt(variance + apart**2 * share * (1 - share)),
        "count": total,
    }


def of_camera(moments: Statistics, counts: PixelCounts) -> Statistics:
    """Return a camera's statistics: pooled ``moments``, and quantiles of all ``counts``.

    Quantiles are clipped to min and max, since pixels may be counted from lossy video.
    """
    whole = of_pixels(counts, int(moments["count"][0]))
    quantiles = {
        name: np.clip(whole[name], moments["min"], moments["max"]) for name in quantile_names()
    }
    return {**{name: moments[name] for name in MOMENTS}, "count": moments["count"], **quantiles}
