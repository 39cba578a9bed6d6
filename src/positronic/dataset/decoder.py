"""Video decoder: frames of one file by number, decoding as little as possible.

Going forward by at most ``SEEK_THRESHOLD`` frames it decodes on; going back or further ahead it
seeks to the key frame before the wanted one. Frames on the way are decoded but not converted.
"""

import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEEK_THRESHOLD = 30  # one group of pictures: seeking closer than that lands on the same key frame
# Pixels of a picture: 8K, or four 4K cameras side by side. H.264 may keep 17 of them, 50 MB each;
# of 16,000 x 16,000 pixels a file of a megabyte takes 6 GB.
MAX_PIXELS = 7680 * 4320
# The names of streams, lists of files and addresses that FFmpeg follows are in other formats than
# MP4; a file that is one of these is not opened, whatever it is called.
_FORMAT = "mp4"
_OPTIONS = {"max_pixels": str(MAX_PIXELS), "protocol_whitelist": "file"}


class Decoder:
    """An open video file. Not for two threads at once.

    Errors are those of PyAV (``av.FFmpegError``), and ValueError for what is not a video, a frame
    that is not there or is damaged, and for pictures of more than ``MAX_PIXELS``.
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
                f"{path.name} has pictures of {stream.width} x {stream.height} pixels, expected at "
                f"most {MAX_PIXELS} pixels"
            )
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}  # they may change size
        stream.codec_context.thread_count = 1
        rate = stream.average_rate or stream.base_rate
        if not rate or not stream.time_base:
            raise ValueError(f"{path.name} gives no frame rate")
        self._ticks = max(1, round(1 / (rate * stream.time_base)))
        self._decoded = self._container.decode(stream)
        self._position = -1
        self._to_rgb = VideoReformatter()  # one for all frames: a frame's own starts from nothing

    def close(self) -> None:
        """Free the file and FFmpeg's memory now; otherwise they wait for the garbage collector."""
        self._container.close()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the encoded picture."""
        return self._stream.height, self._stream.width

    @property
    def length(self) -> int:
        """Number of frames by the file's header, 0 when it does not say."""
        return int(self._stream.frames)

    def frame(self, index: int) -> NDArray[np.uint8]:
        """Frame ``index`` as RGB ``(height, width, 3)``."""
        ahead = index - self._position
        if not 0 < ahead <= SEEK_THRESHOLD:
            self._seek(index)
        frame = self._forward_to(index)
        if frame is None and self._position > index:
            # A container may land behind the wanted frame; the start is before every frame.
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
                raise ValueError("a frame carries no timestamp")
            if (frame.height, frame.width) != self.size:
                raise ValueError(f"a frame has {frame.width} x {frame.height} pixels")
            if frame.is_corrupt:  # ffmpeg paints over damage, which would train a policy on it
                raise ValueError(f"frame {round(frame.pts / self._ticks)} is damaged")
            self._position = round(frame.pts / self._ticks)
            if self._position == index:
                return frame
            if self._position > index:
                break
        return None
