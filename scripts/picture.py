"""Make the README's animation from the demo's recordings: several rollouts beside one another."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from positronic.dataset import Episode, load_all_datasets

CAMERAS = ("image.exterior", "image.wrist")
GAP = 4  # pixels between pictures
HOLD_S = 1.5  # seconds that the last picture stays


def pictures(episodes: list[Episode], fps: int, width: int) -> Iterator[Image.Image]:
    """Yield one picture an instant: a column a rollout, a row a camera; the quick ones wait."""
    longest = max(episode.duration_ns for episode in episodes) / 1e9
    for step in range(round((longest + HOLD_S) * fps)):
        rows = [[_view(e, camera, step / fps, width) for e in episodes] for camera in CAMERAS]
        yield Image.fromarray(np.vstack([np.hstack(row) for row in rows])[:-GAP, :-GAP])


def _view(episode: Episode, camera: str, seconds: float, width: int) -> NDArray[Any]:
    video = episode[camera]
    after = episode.start_ts + round(seconds * 1e9)
    index = max(int(np.searchsorted(video.timestamps(), after, side="right")) - 1, 0)
    picture = Image.fromarray(video.image(index))
    picture = picture.resize((width, picture.height * width // picture.width))
    # White to the right of each picture and below it.
    return np.pad(np.asarray(picture), ((0, GAP), (0, GAP), (0, 0)), constant_values=255)


def main() -> None:
    """Write the animation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", default="demo/stack_cubes-state/rollouts", type=Path)
    parser.add_argument("--columns", default=4, type=int)
    parser.add_argument("--width", default=200, type=int, help="pixels of one picture")
    parser.add_argument("--fps", default=8, type=int)
    parser.add_argument("--output", default="docs/demo.webp", type=Path)
    options = parser.parse_args()
    succeeded = [e for e in load_all_datasets(options.rollouts) if e.static["eval.success"]]
    first, *rest = pictures(succeeded[: options.columns], options.fps, options.width)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    first.save(
        options.output,
        save_all=True,
        append_images=rest,
        duration=round(1000 / options.fps),
        loop=0,
        quality=45,
        method=6,
    )
    print(options.output)


if __name__ == "__main__":
    main()
