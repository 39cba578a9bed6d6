"""Image checks: decode every image stored in a LeRobot dataset's tables."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.documents import inside
from foundation.tables import open_table
from getiaction.dataset_info import Statistics
from positronic.vendors.lerobot.dataset import statistics
from positronic.vendors.lerobot.dataset.fault import Fault
from positronic.vendors.lerobot.dataset.layout import Episode, one_line, size_of
from positronic.vendors.lerobot.verification import statistics_checks

# Errors of Pillow for a damaged image, and of `picture` for one too large for memory.
UNDECODABLE: tuple[type[Exception], ...] = (ValueError, OSError, SyntaxError)


@dataclass(frozen=True)
class PicturesCheck:
    """Decode every image of a camera in one data file.

    ``kind`` is the source of the recorded statistics; None skips them (depth maps).
    """

    root: Path
    key: str
    file: str
    feature: dict[str, Any]
    episodes: Sequence[Episode]
    kind: statistics_checks.Kind | None

    def run(self) -> list[Fault]:
        """Decode and return faults."""
        counted = {episode.index: statistics.ImageStatistics() for episode in self.episodes}
        numbers = dict.fromkeys(counted, 0)
        texts: dict[int, str] = {}
        size = size_of(self.feature)
        with open_table(inside(self.root, self.file)) as table:
            for batch in table.batches(64, ["episode_index", self.key]):
                for row in batch.to_pylist():
                    episode = row["episode_index"]
                    if episode not in counted:
                        continue
                    try:
                        image = picture(row[self.key], size)
                        if self.kind:
                            counted[episode].add(image)
                    except UNDECODABLE as error:
                        text = f"{self.key} of frame {numbers[episode]} cannot be decoded"
                        texts.setdefault(episode, f"{text}: {one_line(error)}")
                    numbers[episode] += 1
        faults = [Fault(self.file, text, episode) for episode, text in texts.items()]
        for episode in self.episodes:
            complete = episode.index not in texts and numbers[episode.index] == episode.length
            if self.kind and complete:
                found = counted[episode.index].result()
                faults += compared(episode, self.key, self.file, found, self.kind)
        return faults


def compared(
    episode: Episode, key: str, file: str, counted: Statistics, kind: statistics_checks.Kind
) -> list[Fault]:
    """Faults of a camera's statistics, compared with those of its frames."""
    if key not in episode.stats:
        text: str | None = f"no statistics of {key} in {episode.table}"
    elif text := statistics_checks.of_images(episode.stats[key], counted, kind):
        text = f"statistics of {key} in {episode.table}: {text}"
    return [Fault(file, text, episode.index)] if text else []


def picture(cell: dict[str, Any] | None, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the image ``(H, W, 3)`` of a table's cell.

    Raises:
        ValueError: it is missing, has another size, or is too large for memory.
    """
    from PIL import Image

    if not cell or cell["bytes"] is None:
        raise ValueError("it is not stored in the table")
    try:
        with Image.open(io.BytesIO(cell["bytes"])) as image:
            if (image.height, image.width) != size:
                raise ValueError(
                    f"it is {image.height}x{image.width}, expected {size[0]}x{size[1]}"
                )
            return np.asarray(image.convert("RGB"))
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from error
