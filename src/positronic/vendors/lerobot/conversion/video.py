"""Video files of a LeRobot dataset: encode a camera's frames, concatenate episodes."""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from positronic.errors import DatasetError


@dataclass(frozen=True)
class Encoder:
    """A video encoder and its options for PyAV."""

    vcodec: str
    pix_fmt: str
    options: dict[str, str]


class VideoWriter:
    """Encodes images uint8 ``(H, W, 3)`` to one mp4 at a fixed rate, without dropping any."""

    def __init__(self, path: Path, fps: int, encoder: Encoder) -> None:
        import av

        os.environ.setdefault("SVT_LOG", "1")  # errors only; by default it prints its settings
        self.path = path
        self.frames = 0
        self._fps = fps
        self._tick = Fraction(1, fps)
        self._encoder = encoder
        self._container = av.open(str(path), "w")
        self._stream: Any = None

    def add(self, image: NDArray[np.uint8]) -> None:
        """Encode the next frame; all have the same size."""
        import av

        if self._stream is None:
            self._stream = self._container.add_stream(
                self._encoder.vcodec, self._fps, options=self._encoder.options
            )
            self._stream.pix_fmt = self._encoder.pix_fmt
            self._stream.height, self._stream.width = image.shape[:2]
            self._stream.time_base = self._tick
        # Without a copy: the encoder converts the pixels before it returns.
        frame = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(image), format="rgb24")
        frame.pts, frame.time_base = self.frames, self._tick
        urgent = os.sched_getscheduler(0) == os.SCHED_FIFO
        self._container.mux(self._stream.encode(frame))
        if self.frames == 0 and not urgent:
            end_real_time()
        self.frames += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None and self._stream is not None:
                self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()


def end_real_time() -> None:
    """Undo the real-time scheduling that SVT-AV1 sets when root opens an encoder.

    It would apply to the calling thread, and be inherited by threads and processes started later,
    which would starve everything else on the machine.
    """
    for thread in map(int, os.listdir("/proc/self/task")):
        with contextlib.suppress(ProcessLookupError):  # it may have ended since it was listed
            if os.sched_getscheduler(thread) == os.SCHED_FIFO:
                os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


def join(parts: Sequence[Path], output: Path, fps: int) -> int:
    """Concatenate the videos ``parts`` to ``output`` without re-encoding; return the frame count.

    Every packet's timestamp is its frame's number, so that frame ``k`` is at exactly ``k / fps``.
    FFmpeg's concat demuxer rounds each part's duration to microseconds, so that after some hundred
    episodes frames would be off by more than LeRobot tolerates.

    Raises:
        DatasetError: the file does not have as many frames as the parts.
    """
    import av

    av.logging.set_libav_level(av.logging.WARNING)  # by default it logs every finished file
    output.parent.mkdir(parents=True, exist_ok=True)
    base, tick = 0, Fraction(1, fps)
    with av.open(str(output), "w", options={"movflags": "faststart"}) as joined:
        stream: Any = None
        for part in parts:
            with av.open(str(part)) as source:
                video = source.streams.video[0]
                if stream is None:
                    stream = joined.add_stream_from_template(video, opaque=True)
                    stream.time_base = tick
                shift, ticks = 0, 1 / float(video.time_base * fps)  # ticks of a frame
                for packet in source.demux(video):
                    if packet.dts is None:
                        continue
                    packet.pts = base + round(packet.pts / ticks)
                    packet.dts = base + round(packet.dts / ticks)
                    packet.duration = 1  # otherwise the last one changes the rate in the header
                    packet.time_base = tick
                    packet.stream = stream
                    joined.mux(packet)
                    shift += 1
                base += shift
    with av.open(str(output)) as check:
        written = int(check.streams.video[0].frames)
    if written != base:
        raise DatasetError(f"{output.name} has {written} frames, expected {base}; convert again")
    return base
