"""Video files of a LeRobot dataset: encode a camera's frames, concatenate episodes."""

import contextlib
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, override

import numpy as np
from numpy.typing import NDArray

from foundation.video import Encoder, VideoFile
from positronic.errors import DatasetError


class VideoWriter(VideoFile):
    """Encodes images uint8 ``(H, W, 3)`` to one mp4 at a fixed rate, without dropping any."""

    def __init__(self, path: Path, fps: int, encoder: Encoder) -> None:
        os.environ.setdefault("SVT_LOG", "1")  # errors only; by default it prints its settings
        super().__init__(path, fps, encoder)

    @override
    def add(self, image: NDArray[np.uint8]) -> None:
        urgent = os.sched_getscheduler(0) == os.SCHED_FIFO
        super().add(image)
        if self.frames == 1 and not urgent:
            end_real_time()


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
