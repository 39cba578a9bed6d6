"""Episode videos: H.264 files named by seed and outcome."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

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
        self._rate = Fraction(fps).limit_denominator(1001)
        self._staged = directory / f".seed_{seed}.mp4"
        self._container: Any = None
        self._stream: Any = None

    def add(self, image: NDArray[np.uint8]) -> None:
        """Write one frame, uint8 (H, W, 3)."""
        import av

        height, width = image.shape[:2]
        if self._container is None:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._container = av.open(str(self._staged), "w", format="mp4")
            options = {"crf": "23", "preset": "veryfast"}
            self._stream = self._container.add_stream("libx264", rate=self._rate, options=options)
            # 4:2:0 chroma subsampling requires even sizes.
            self._stream.height, self._stream.width = height + height % 2, width + width % 2
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.thread_count = 1
        padding = ((0, height % 2), (0, width % 2), (0, 0))
        frame = np.ascontiguousarray(np.pad(image, padding, mode="edge"))
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))

    def finish(self, success: bool | None) -> Path | None:
        """Close and rename the file; return its path, or None without frames."""
        if self._container is None:
            return None
        self._container.mux(self._stream.encode(None))
        self._container.close()
        self._container = None
        outcome = OUTCOMES[success]
        return self._staged.replace(self._directory / f"seed_{self._seed}_{outcome}.mp4")

    def discard(self) -> None:
        """Remove an unfinished video."""
        if self._container is not None:
            self._container.close()
            self._container = None
            self._staged.unlink(missing_ok=True)
