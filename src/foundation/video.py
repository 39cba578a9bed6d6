"""MP4 video writer (PyAV): encodes frames one by one as they come."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Encoder:
    """A video encoder and its options, as PyAV takes them."""

    vcodec: str
    pix_fmt: str
    options: dict[str, str]


class VideoFile:
    """Encodes uint8 ``(H, W, 3)`` frames of one even size into an MP4; no frame is dropped.

    A context manager: on an error, the file lacks the frames still in the encoder.

    Args:
        target: The file or seekable stream to write to.
        fps: Frames a second.
        encoder: The encoder and its options.
    """

    def __init__(self, target: Path | BinaryIO, fps: float, encoder: Encoder) -> None:
        import av  # takes longer to load than all else here

        self._av = av
        self._rate = Fraction(fps).limit_denominator(1001)
        self._encoder = encoder
        # An absolute path, because PyAV takes text before a colon for a protocol.
        place = str(target.absolute()) if isinstance(target, Path) else target
        self._container = av.open(place, "w", format="mp4")
        self._stream: Any = None
        self.frames = 0

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, those of the first frame."""
        return self._stream.width, self._stream.height

    def add(self, picture: NDArray[np.uint8]) -> None:
        """Encode the next frame."""
        if self._stream is None:
            self._stream = self._container.add_stream(
                self._encoder.vcodec, self._rate, options=self._encoder.options
            )
            self._stream.pix_fmt = self._encoder.pix_fmt
            self._stream.height, self._stream.width = picture.shape[:2]
            self._stream.time_base = 1 / self._rate
        # The encoder converts the pixels before it returns, so the array itself can be lent.
        lent = np.ascontiguousarray(picture)
        frame = self._av.VideoFrame.from_numpy_buffer(lent, format="rgb24")
        frame.pts, frame.time_base = self.frames, 1 / self._rate
        self._container.mux(self._stream.encode(frame))
        self.frames += 1

    def close(self) -> None:
        """Finish the file."""
        try:
            if self._stream is not None:
                self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()

    def discard(self) -> None:
        """Close the file without the frames still in the encoder."""
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


def even(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pad an image to even size by repeating its last row or column.

    Chroma is stored for every second pixel, so encoders want both sides to be even.
    """
    height, width = picture.shape[:2]
    if height % 2 or width % 2:
        return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return picture
