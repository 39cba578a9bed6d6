"""Rollout videos in H.264: cameras side by side, in real time of the simulation."""

import io
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.video import Encoder, VideoFile

# Of this project's environments, and of others by LeRobot's keys.
CAMERAS = ("image.", "observation.image")
GAP = 4  # pixels between two cameras
# A short GOP makes dragging the playhead smooth; one thread leaves the rest alone.
ENCODER = Encoder(
    "libx264", "yuv420p", {"crf": "25", "preset": "veryfast", "g": "15", "threads": "1"}
)


def side_by_side(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Place uint8 HWC images of any sizes in one row, aligned at the top, on black.

    Width and height of the result are even, as 4:2:0 chroma subsampling requires.
    """
    height = max(image.shape[0] for image in images)
    width = sum(image.shape[1] for image in images) + GAP * (len(images) - 1)
    canvas = np.zeros((height + height % 2, width + width % 2, 3), dtype=np.uint8)
    left = 0
    for image in images:
        canvas[: image.shape[0], left : left + image.shape[1]] = image
        left += image.shape[1] + GAP
    return canvas


def encode_mp4(frames: Iterable[NDArray[np.uint8]], fps: float) -> tuple[bytes, tuple[int, int]]:
    """Encode uint8 HWC frames of one even size as an MP4.

    Returns the file and its (width, height).

    Raises:
        ValueError: there are no frames.
    """
    buffer = io.BytesIO()
    with VideoFile(buffer, fps, ENCODER) as video:
        for frame in frames:
            video.add(frame)
        if not video.frames:
            raise ValueError("no frames to encode")
    return buffer.getvalue(), video.size


@dataclass(frozen=True)
class VideoDirectory:
    """Directory of the videos of ``count`` rollouts, which is needed to pad their numbers."""

    root: Path
    count: int

    def begin(self, index: int, fps: float) -> "RolloutVideo":
        """Start the video of rollout ``index``, counted from 0."""
        return RolloutVideo(self._staged(index), fps)

    def discard(self, index: int) -> None:
        """Remove the unfinished video of rollout ``index`` after its process died."""
        self._staged(index).unlink(missing_ok=True)

    def _staged(self, index: int) -> Path:
        return self.root / f".{index:0{len(str(self.count - 1))}d}.mp4"


class RolloutVideo:
    """Video of one rollout, named by its outcome at the end."""

    def __init__(self, staged: Path, fps: float) -> None:
        """Start writing to a hidden file, creating its directory if missing."""
        staged.parent.mkdir(parents=True, exist_ok=True)
        self._staged = staged
        self._video = VideoFile(staged, fps, ENCODER)

    def add(self, obs: Mapping[str, Any]) -> None:
        """Append the camera images of an observation."""
        images = [value for name, value in obs.items() if name.startswith(CAMERAS)]
        self._video.add(side_by_side(images))

    def finish(self, ended_by: str) -> Path:
        """Rename the video by its outcome, ``003-success.mp4``, and return the path."""
        self._video.close()
        number = self._staged.stem.removeprefix(".")
        return self._staged.rename(self._staged.with_name(f"{number}-{ended_by}.mp4"))

    def abort(self) -> None:
        """Discard the video."""
        self._video.discard()
        self._staged.unlink(missing_ok=True)
        with suppress(OSError):
            self._staged.parent.rmdir()  # if it was made for this video
