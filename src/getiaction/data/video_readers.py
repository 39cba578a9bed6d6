"""Video readers (PyAV, torchcodec) that keep files open and return the same frames as LeRobot.

LeRobot's function for PyAV opens the file again for each sample, which takes longer than decoding.
"""

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
from lerobot.datasets.video_utils import DEFAULT_DECODER_CACHE_SIZE, decode_video_frames
from numpy.typing import NDArray

# Decoding up to so many unneeded frames is faster than seeking.
FRAMES_PER_SEEK = 2

type Frame = NDArray[np.uint8]


class VideoReader(ABC):
    """One open video file; not thread-safe.

    Args:
        path: The file.
        tolerance_s: Maximum difference between requested and found frame time, in seconds.
    """

    backend: str

    def __init__(self, path: Path, tolerance_s: float) -> None:
        self.path = path
        self.tolerance_s = tolerance_s

    @abstractmethod
    def frames(self, seconds: Sequence[float]) -> Iterator[Frame]:
        """Yield the frame at each of ``seconds``, in ascending order: uint8 (C, H, W)."""

    @abstractmethod
    def close(self) -> None:
        """Close the file now: PyAV's objects have reference cycles, which delay collection."""

    def _is_at(self, found: float, wanted: float) -> bool:
        # LeRobot compares times in float32.
        return bool(abs(np.float32(found) - np.float32(wanted)) < self.tolerance_s)

    def _frame_by_lerobot(self, wanted: float) -> Frame:
        """The frame decoded by LeRobot, or LeRobot's error if there is none."""
        frames = decode_video_frames(
            self.path, [wanted], self.tolerance_s, self.backend, return_uint8=True
        )
        frame: Frame = frames[0].numpy()
        return frame


class PyavReader(VideoReader):
    """Reads with PyAV, decoding forward if that is faster than seeking."""

    backend = "pyav"

    def __init__(self, path: Path, tolerance_s: float) -> None:
        super().__init__(path, tolerance_s)
        self._container = av.open(str(path))
        self._stream = self._container.streams.video[0]
        # Files are read in parallel; decoder threads would only contend.
        self._stream.thread_count = 1
        self._rate = float(self._stream.average_rate or 1)
        # There is at most one frame within this distance.
        self._close = min(tolerance_s, 0.25 / self._rate)
        self._decoded: Iterator[Any] = iter(())
        self._last: Any = None
        self._longest = FRAMES_PER_SEEK

    def frames(self, seconds: Sequence[float]) -> Iterator[Frame]:
        """Yield the frame at each of ``seconds``, in ascending order: uint8 (C, H, W)."""
        for wanted in seconds:
            frame = self._frame(wanted)
            if frame is None or not self._is_at(frame.time, wanted):
                yield self._frame_by_lerobot(wanted)
            else:
                yield frame.to_ndarray(format="rgb24").transpose(2, 0, 1)

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _frame(self, wanted: float) -> Any:
        """The first frame at or after ``wanted``."""
        sought = not self._is_ahead(wanted)
        if sought:
            self._seek(wanted)
        count = 0
        while self._last is None or self._last.time < wanted - self._close:
            self._last = next(self._decoded, None)
            count += 1
            if self._last is None:
                return None
        if sought:
            self._longest = max(self._longest, count)
        return self._last

    def _is_ahead(self, wanted: float) -> bool:
        """Return whether to decode forward instead of seeking; key frame positions are unknown."""
        if self._last is None:
            return False
        frames: float = (wanted - self._last.time) * self._rate
        return -self._close * self._rate <= frames <= self._longest

    def _seek(self, wanted: float) -> None:
        self._last = None
        assert self._stream.time_base is not None
        offset = round(wanted / self._stream.time_base)
        self._container.seek(offset, backward=True, any_frame=False, stream=self._stream)
        decoded = self._container.decode(self._stream)
        self._decoded = (frame for frame in decoded if frame.pts is not None)


class TorchcodecReader(VideoReader):
    """Reads with torchcodec, which optimises seeking itself."""

    backend = "torchcodec"

    def __init__(self, path: Path, tolerance_s: float) -> None:
        super().__init__(path, tolerance_s)
        from torchcodec.decoders import VideoDecoder

        # Like LeRobot's decoder cache, but opened by path: Python's file objects need the GIL.
        self._decoder: Any = VideoDecoder(str(path), seek_mode="approximate")
        self._rate: float = self._decoder.metadata.average_fps

    def frames(self, seconds: Sequence[float]) -> Iterator[Frame]:
        """Yield the frame at each of ``seconds``, in ascending order: uint8 (C, H, W)."""
        found = self._decoder.get_frames_at(indices=[round(at * self._rate) for at in seconds])
        times = found.pts_seconds.tolist()
        for frame, time, wanted in zip(found.data.numpy(), times, seconds, strict=True):
            yield frame if self._is_at(time, wanted) else self._frame_by_lerobot(wanted)

    def close(self) -> None:
        """Close the file."""
        del self._decoder


READERS: dict[str, type[VideoReader]] = {
    reader.backend: reader for reader in (PyavReader, TorchcodecReader)
}


class ReaderPool:
    """Pool of open readers, each used by one thread at a time; the least recently used are closed.

    Args:
        backend: LeRobot's name of the video decoder.
        tolerance_s: Maximum difference between requested and found frame time, in seconds.
        idle: Maximum number of unused readers that stay open.
    """

    def __init__(
        self, backend: str, tolerance_s: float, idle: int = DEFAULT_DECODER_CACHE_SIZE
    ) -> None:
        self._made = READERS[backend]
        self._tolerance_s = tolerance_s
        self._most = idle
        self._reset()

    @contextmanager
    def reader(self, path: Path) -> Iterator[VideoReader]:
        """Borrow a reader of ``path``; after an error it is not reused."""
        reader = self._take(path) or self._made(path, self._tolerance_s)
        try:
            yield reader
        except BaseException:
            reader.close()
            raise
        with self._lock:
            self._idle[reader] = None
            oldest = next(iter(self._idle))
            if len(self._idle) > self._most:
                del self._idle[oldest]
                oldest.close()

    def _take(self, path: Path) -> VideoReader | None:
        if self._process != os.getpid():
            self._reset()  # a forked process shares file positions with its parent
        with self._lock:
            found = next((idle for idle in reversed(self._idle) if idle.path == path), None)
            if found is not None:
                del self._idle[found]
            return found

    def _reset(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        #: Least recently used first.
        self._idle: dict[VideoReader, None] = {}

    def __getstate__(self) -> dict[str, Any]:
        names = ("_made", "_tolerance_s", "_most")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._reset()
