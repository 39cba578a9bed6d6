"""Episode videos: H.264 files named by seed and outcome."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from foundation.video import Encoder, VideoFile, even

ENCODER = Encoder("libx264", "yuv420p", {"crf": "23", "preset": "veryfast", "threads": "1"})
OUTCOMES = {True: "success", False: "failure", None: "not_measured"}


class EpisodeVideos:
    """Videos of episodes that are played in parallel.

    A context manager: unfinished videos are removed at exit.

    Args:
        directory: Directory to write to; created if missing.
        seeds: Seeds of the recorded episodes, which are the first ones.
        fps: Frames per second.
    """

    def __init__(self, directory: Path, seeds: Sequence[int], fps: float) -> None:
        self._videos = [_EpisodeVideo(directory, seed, fps) for seed in seeds]

    @property
    def active(self) -> bool:
        """Whether any episode is recorded."""
        return bool(self._videos)

    def add(self, images: Sequence[NDArray[np.uint8] | None]) -> None:
        """Add a frame, uint8 (H, W, 3), to each video; None for episodes that are over."""
        for video, image in zip(self._videos, images, strict=False):
            if image is not None:
                video.add(image)

    def finish(self, successes: Sequence[bool | None]) -> list[Path | None]:
        """Rename the files by outcome; return None for an episode that was not recorded.

        A success of None is named ``not_measured``.
        """
        pairs = zip(self._videos, successes, strict=False)
        paths: list[Path | None] = [video.finish(success) for video, success in pairs]
        return paths + [None] * (len(successes) - len(paths))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for video in self._videos:
            video.discard()


class _EpisodeVideo:
    """Video written while its episode is played: H.264, ``seed_<seed>_<outcome>.mp4``.

    Until it is finished the file has a hidden name; unfinished files are removed.

    Args:
        directory: Directory to write to; created if missing.
        seed: The episode's seed.
        fps: Frames per second.
    """

    def __init__(self, directory: Path, seed: int, fps: float) -> None:
        self._directory = directory
        self._seed = seed
        self._fps = fps
        self._staged = directory / f".seed_{seed}.mp4"
        self._file: VideoFile | None = None

    def add(self, image: NDArray[np.uint8]) -> None:
        """Write one frame, uint8 (H, W, 3)."""
        if self._file is None:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._file = VideoFile(self._staged, self._fps, ENCODER)
        self._file.add(even(image))

    def finish(self, success: bool | None) -> Path | None:
        """Close and rename the file; return its path, or None without frames."""
        if self._file is None:
            return None
        self._file.close()
        self._file = None
        outcome = OUTCOMES[success]
        return self._staged.replace(self._directory / f"seed_{self._seed}_{outcome}.mp4")

    def discard(self) -> None:
        """Remove an unfinished video."""
        if self._file is not None:
            self._file.discard()
            self._file = None
            self._staged.unlink(missing_ok=True)
