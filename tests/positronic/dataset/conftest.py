from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from positronic.dataset import DatasetWriter

FIXTURE = Path(__file__).parents[3].parent / "shared" / "fixtures" / "recorded_sim"
NS = 10**9


@pytest.fixture
def fixture_root() -> Path:
    """Two episodes recorded by public Positronic 0.2.1."""
    if not FIXTURE.is_dir():
        pytest.skip(f"the recordings of public Positronic are not at {FIXTURE}")
    return FIXTURE


def picture(number: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """An image for each number up to 100: the left half tells it, the right half is a pattern."""
    y, x = np.mgrid[0:height, 0:width]
    image = np.stack([55 + 2 * y, 120 + x, 200 - y], axis=-1)
    image[:, : width // 2] = 20 + 2 * number
    return image.astype(np.uint8)


def number_of(image: NDArray[np.uint8]) -> int:
    """The number that ``picture`` was given; grey comes out of the video up to 1 darker."""
    return round((float(image[:, : image.shape[1] // 2 - 4].mean()) - 19.5) / 2)


def record(
    root: Path, *, frames: int = 40, size: tuple[int, int] = (48, 64), **static: Any
) -> Path:
    """An episode at 15 Hz: ``q`` (7,) float32, ``grip``, ``image.wrist``."""
    with DatasetWriter(root).new_episode() as writer:
        for i in range(frames):
            t = i * NS // 15
            writer.append("q", np.full(7, i, dtype=np.float32), t)
            writer.append("grip", float(i), t)
            writer.append("image.wrist", picture(i, *size), t)
        for name, value in static.items():
            writer.set_static(name, value)
    return writer.path
