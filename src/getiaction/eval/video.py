"""Videos of episodes."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class EpisodeVideo:
    """A video that is written while its episode is played: H.264, ``seed_<seed>_<outcome>.mp4``.

    Until it is finished the file has another, hidden name; nothing half-written is left behind.

    Args:
        directory: Where to write; it is made if need be.
        seed: The episode's seed.
        fps: Frames a second.
    """

    def __init__(self, directory: Path, seed: int, fps: float) -> None:
        self._directory = directory
        self._seed = seed
        self._rate = Fraction(fps).limit_denominator(1001)
        self._staged = directory / f".seed_{seed}.mp4"
        self._container: Any = None
        self._stream: Any = None

    def add(self, picture: NDArray[np.uint8]) -> None:
        """Write one frame, uint8 (H, W, 3)."""
        import av

        height, width = picture.shape[:2]
        if self._container is None:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._container = av.open(str(self._staged), "w", format="mp4")
            options = {"crf": "23", "preset": "veryfast"}
            self._stream = self._container.add_stream("libx264", rate=self._rate, options=options)
            # Chroma is stored for every second pixel, so both sides have to be even.
            self._stream.height, self._stream.width = height + height % 2, width + width % 2
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.thread_count = 1
        padding = ((0, height % 2), (0, width % 2), (0, 0))
        frame = np.ascontiguousarray(np.pad(picture, padding, mode="edge"))
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))

    def finish(self, success: bool) -> Path | None:
        """Close the file and give it its name; return it, or None if there were no frames."""
        if self._container is None:
            return None
        self._container.mux(self._stream.encode(None))
        self._container.close()
        outcome = "success" if success else "failure"
        return self._staged.replace(self._directory / f"seed_{self._seed}_{outcome}.mp4")

    def discard(self) -> None:
        """Leave nothing behind."""
        if self._container is not None:
            self._container.close()
            self._staged.unlink(missing_ok=True)
