"""Video decoder: read frames of one file by number, decoding as few as possible.

Up to ``SEEK_THRESHOLD`` frames ahead it decodes forward; further ahead or backward it seeks to the
key frame before the requested frame. Frames in between are decoded but not converted to RGB.
"""

import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEEK_THRESHOLD = 30  # one group of pictures: seeking closer than that lands on the same key frame
# Pixels of a frame: 8K, or four 4K cameras side by side. H.264 may buffer 17 frames, 50 MB each;
# with frames of 16,000 x 16,000 pixels, decoding a 1 MB file takes 6 GB.
MAX_PIXELS = 7680 * 4320
# Formats that make FFmpeg open other files or URLs (playlists, concat lists) are not MP4. Forcing
# MP4 keeps such a file from being followed, whatever its extension.
_FORMAT = "mp4"
_OPTIONS = {"max_pixels": str(MAX_PIXELS), "protocol_whitelist": "file"}


class Decoder:
    """An open video file. Not thread-safe.

    Raises PyAV's errors (``av.FFmpegError``), and ValueError for a file that is not a video, a
    missing or damaged frame, and frames of more than ``MAX_PIXELS``.
    """

    def __init__(self, path: Path) -> None:
        import av
        from av.video.reformatter import VideoReformatter

        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ValueError(f"{path.name} is not a regular file")
        self._container = av.open(str(path), format=_FORMAT, options=_OPTIONS)
        if not self._container.streams.video:
            raise ValueError(f"{path.name} holds no video stream")
        stream = self._stream = self._container.streams.video[0]
        if not 0 < stream.width * stream.height <= MAX_PIXELS:
            raise ValueError(
                f"{path.name} has frames of {stream.width} x {stream.height} pixels, expected at "
                f"most {MAX_PIXELS} pixels"
            )
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}  # the frame size may change
        stream.codec_context.thread_count = 1
        rate = stream.average_rate or stream.base_rate
        if not rate or not stream.time_base:
            raise ValueError(f"{path.name} has no frame rate")
        self._ticks = max(1, round(1 / (rate * stream.time_base)))
        self._decoded = self._container.decode(stream)
        self._position = -1
        self._to_rgb = VideoReformatter()  # reused: a frame's own would set up a new scaler

    def close(self) -> None:
        """Free the file and FFmpeg's memory now instead of at the next garbage collection."""
        self._container.close()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the encoded frames."""
        return self._stream.height, self._stream.width

    @property
    def length(self) -> int:
        """Number of frames according to the file's header, 0 if it does not state one."""
        return int(self._stream.frames)

    def frame(self, index: int) -> NDArray[np.uint8]:
        """Frame ``index`` as RGB ``(height, width, 3)``."""
        ahead = index - self._position
        if not 0 < ahead <= SEEK_THRESHOLD:
            self._seek(index)
        frame = self._forward_to(index)
        if frame is None and self._position > index:
            # A seek may land behind the requested frame: decode from the start instead.
            self._seek(0)
            frame = self._forward_to(index)
        if frame is None:
            raise ValueError(f"the video has no frame {index}")
        return np.asarray(self._to_rgb.reformat(frame, format="rgb24").to_ndarray())

    def _seek(self, index: int) -> None:
        self._container.seek(index * self._ticks, stream=self._stream)
        self._decoded = self._container.decode(self._stream)
        self._position = -1

    def _forward_to(self, index: int) -> Any:
        for frame in self._decoded:
            if frame.pts is None:
                raise ValueError("a frame has no timestamp")
            if (frame.height, frame.width) != self.size:
                raise ValueError(f"a frame has {frame.width} x {frame.height} pixels")
            if frame.is_corrupt:  # FFmpeg conceals errors; a policy would train on that
                raise ValueError(f"frame {round(frame.pts / self._ticks)} is damaged")
            self._position = round(frame.pts / self._ticks)
            if self._position == index:
                return frame
            if self._position > index:
                break
        return None
