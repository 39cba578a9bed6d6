"""Quality measures of one camera, in one pass over its frames."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Frames are looked at in grey, about this many pixels wide.
WIDTH = 64
# Grey levels out of 255: two frames that differ by less are the same; a darker frame is black.
SAME, BLACK = 0.25, 10.0
# Sides of the picture that tells whether the camera was moved.
VIEW = 8


class Camera(NamedTuple):
    """Measures of a camera.

    Attributes:
        frozen: longest run of equal frames, as a share of all.
        black: share of black frames.
        sharpness: median of ln of the variance of the Laplacian, see `sharpness_of`.
        view: median picture, ``(VIEW * VIEW,)`` grey levels.
    """

    frozen: float
    black: float
    sharpness: float
    view: NDArray[np.float64]


def measure(frames: Iterable[NDArray[np.uint8]]) -> Camera | None:
    """Measure a camera's frames ``(H, W, 3)``, one at a time; None without a frame."""
    before: NDArray[np.float64] | None = None
    run = longest = black = 0
    sharp: list[float] = []
    views: list[NDArray[np.float64]] = []
    for frame in frames:
        step = max(1, frame.shape[1] // WIDTH)
        grey = frame[::step, ::step].mean(axis=2)
        same = before is not None and float(np.abs(grey - before).mean()) < SAME
        run = run + 1 if same else 0
        longest = max(longest, run)
        black += bool(grey.mean() < BLACK)
        sharp.append(sharpness_of(grey))
        views.append(_shrunk(grey))
        before = grey
    if not views:
        return None
    count = len(views)
    view = np.median(np.stack(views), axis=0)
    return Camera(longest / count, black / count, float(np.median(sharp)), view)


def sharpness_of(grey: NDArray[np.float64]) -> float:
    """Return ln of the variance of the Laplacian of a picture ``(H, W)``; blur lowers it.

    Source: J. L. Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy: a comparative
    study", ICPR 2000.
    """
    if min(grey.shape) < 3:
        return 0.0
    inner = grey[1:-1, 1:-1]
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float(np.log1p(np.var(around - 4 * inner)))


def _shrunk(grey: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of ``VIEW`` by ``VIEW`` blocks."""
    rows = np.array_split(grey, VIEW, axis=0)
    blocks = [block.mean() if block.size else 0.0 for r in rows for block in _columns(r)]
    return np.array(blocks)


def _columns(rows: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    return np.array_split(rows, VIEW, axis=1)
