"""Make the README's picture from the demo's recordings: one rollout as a strip of images."""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from positronic.dataset import load_all_datasets

CAMERAS = ("image.exterior", "image.wrist")
GAP = 4  # pixels between pictures


def strip(rollouts: Path, columns: int) -> Image.Image:
    """Lay the first successful rollout out: a row a camera, a column an instant."""
    episode = next(e for e in load_all_datasets(rollouts) if e.static["eval.success"])
    rows = []
    for camera in CAMERAS:
        video = episode[camera]
        at = np.linspace(0, len(video) - 1, columns).round().astype(int)
        # White to the right of each picture and below it.
        edges = ((0, GAP), (0, GAP), (0, 0))
        rows.append(np.hstack([np.pad(f, edges, constant_values=255) for f in video.frames(at)]))
    return Image.fromarray(np.vstack(rows)[:-GAP, :-GAP])


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", default="demo/stack_cubes-state/rollouts", type=Path)
    parser.add_argument("--columns", default=6, type=int)
    parser.add_argument("--output", default="docs/demo.jpg", type=Path)
    options = parser.parse_args()
    picture = strip(options.rollouts, options.columns)
    picture.thumbnail((1280, 1280))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    picture.save(options.output, quality=88)
    print(options.output)


if __name__ == "__main__":
    main()
