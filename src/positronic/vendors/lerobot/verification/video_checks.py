"""Video checks: packets, timestamps and every frame of a LeRobot dataset's cameras.

LeRobot reads frame ``k`` of an episode at ``from_timestamp + timestamp`` of its file, by frame
number at the file's rate (torchcodec) or by seeking (PyAV), and raises if the two times, as
float32, differ by ``TOLERANCE_S`` or more. The same is computed here for every frame.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.documents import InvalidDocument, inside
from positronic.vendors.lerobot.dataset import statistics
from positronic.vendors.lerobot.dataset.fault import Fault, first_of
from positronic.vendors.lerobot.dataset.layout import Clip, Episode, one_line, size_of
from positronic.vendors.lerobot.verification import statistics_checks
from positronic.vendors.lerobot.verification.picture_checks import compared

TOLERANCE_S = 1e-4
MANY = 100_000
LARGEST = 1 << 26  # pixels of a frame: 8192 x 8192
# Self-contained formats: a playlist could open other files or URLs.
SELF_CONTAINED = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts",
}


@dataclass(frozen=True)
class PacketsCheck:
    """Check of a video file's packets and the episodes' timestamps, without decoding."""

    root: Path
    key: str
    file: str
    feature: dict[str, Any]
    fps: float
    episodes: Sequence[Episode]

    def run(self) -> list[Fault]:
        """Read the packets and return faults."""
        try:
            texts, times, rate = self._stream()
        except broken() as error:
            return [Fault(self.file, f"cannot be read: {_message(error)}", unreadable=True)]
        faults = [Fault(self.file, text) for text in texts]
        rows = sum(episode.length for episode in self.episodes)
        if len(times) != rows:
            faults.append(Fault(self.file, f"has {len(times)} frames, expected {rows}"))
        before: Episode | None = None
        for episode in sorted(self.episodes, key=lambda e: e.videos[self.key].start):
            texts = [*self._span(episode, before), *self._times(episode, times, rate)]
            faults += [Fault(self.file, text, episode.index) for text in texts]
            before = episode
        return faults

    def _stream(self) -> tuple[list[str], NDArray[np.float64], float]:
        """Faults of the header, the packets' times in seconds, ascending, and the rate."""
        with _opened(self.root, self.file) as container:
            stream = container.streams.video[0]
            size = (stream.height, stream.width)
            rate = float(stream.average_rate or 0)
            found = {
                "an image": (f"{size[0]}x{size[1]}", "{}x{}".format(*size_of(self.feature))),
                "video": (stream.codec.canonical_name, self._recorded_info("video.codec")),
                "video at": (f"{rate:.4g} fps", f"{self.fps:.4g} fps"),
            }
            texts = [
                f"is {what} {is_so}, expected {should}"
                for what, (is_so, should) in found.items()
                if should is not None and is_so != should
            ]
            packets = [(p.pts, p.is_keyframe) for p in container.demux(stream) if p.size]
            if packets and not packets[0][1]:
                texts.append("does not begin with a key frame")
            if any(pts is None for pts, _ in packets):
                texts.append("has frames without a time")
            base = stream.time_base or 1
            times = [float(pts * base) for pts, _ in packets if pts is not None]
        return texts, np.sort(np.array(times, dtype=np.float64)), rate

    def _recorded_info(self, name: str) -> str | None:
        info = self.feature.get("info") or self.feature.get("video_info") or {}
        return info.get(name)

    def _span(self, episode: Episode, before: Episode | None) -> Iterator[str]:
        clip = episode.videos[self.key]
        lasts, expected = clip.stop - clip.start, episode.length / self.fps
        if not abs(lasts - expected) <= TOLERANCE_S:
            yield (
                f"from_timestamp {clip.start:.6g} to to_timestamp {clip.stop:.6g} are"
                f" {lasts:.6g} s, expected {expected:.6g} s"
            )
        if before is not None and clip.start < before.videos[self.key].stop - TOLERANCE_S:
            stop = before.videos[self.key].stop
            yield (
                f"begins at {clip.start:.6g} s, before episode {before.index} ends at {stop:.6g} s"
            )

    def _times(self, episode: Episode, times: NDArray[np.float64], rate: float) -> Iterator[str]:
        # Bounded, as an absurd length would exhaust memory.
        count = min(episode.length, len(times) + MANY)
        rows = (np.arange(count) / self.fps).astype(np.float32).astype(np.float64)
        asked = episode.videos[self.key].start + rows
        numbers = np.rint(asked * rate).astype(np.int64)
        if (gone := (numbers < 0) | (numbers >= len(times))).any():
            at, more = first_of(gone)
            yield f"frame {at} is not in the file{more}"
            return
        apart = np.abs(asked.astype(np.float32) - times[numbers].astype(np.float32))
        if (wrong := apart >= TOLERANCE_S).any():
            at, more = first_of(wrong)
            yield (
                f"frame {at} is at {times[numbers[at]]:.6f} s, LeRobot looks for it at"
                f" {asked[at]:.6f} s{more}"
            )


@dataclass(frozen=True)
class FramesCheck:
    """Decode every frame of one episode's camera.

    ``kind`` is the source of the recorded statistics; None skips them (depth maps).
    """

    root: Path
    key: str
    episode: Episode
    fps: float
    kind: statistics_checks.Kind | None

    @property
    def file(self) -> str:
        """The video file."""
        return self.episode.videos[self.key].file

    def run(self) -> list[Fault]:
        """Decode and return faults."""
        counted = statistics.ImageStatistics()
        number = 0
        try:
            for frame in frames_of(self.root, self.key, self.episode, self.fps):
                if self.kind:
                    counted.add(frame.to_ndarray(format="rgb24"))
                number += 1
        except broken() as error:
            text = f"frame {number} cannot be decoded: {_message(error)}"
            return [Fault(self.file, text, self.episode.index)]
        if not self.kind:
            return []
        return compared(self.episode, self.key, self.file, counted.result(), self.kind)


def frames_of(root: Path, key: str, episode: Episode, fps: float) -> Iterator[Any]:
    """Yield every frame of an episode's camera; raises one of `broken` if one is missing."""
    frames = _decoded(root, episode.videos[key], fps)
    for number, frame in enumerate(frames, 1):
        yield frame
        if number == episode.length:
            return
    raise ValueError("the video ends")


def broken() -> tuple[type[Exception], ...]:
    """Classes of errors raised for a damaged video."""
    import av

    return av.FFmpegError, OSError, ValueError, IndexError, InvalidDocument


def _message(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or one_line(error))


def _opened(root: Path, name: str) -> Any:
    """Open a video file inside the dataset that does not refer to other files."""
    import av

    path = inside(root, name)
    if not path.is_file():
        raise ValueError("it is not a regular file")
    return av.open(str(path.absolute()), options={**SELF_CONTAINED})


def _decoded(root: Path, clip: Clip, fps: float) -> Iterator[Any]:
    """Yield frames from the clip's first; ValueError if one is damaged or at a wrong time."""
    with _opened(root, clip.file) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        # Raise on errors instead of concealing them, and limit the frame size.
        stream.codec_context.options = {"err_detect": "explode", "max_pixels": str(LARGEST)}
        base = stream.time_base or 1
        container.seek(round(clip.start / base), stream=stream)
        number = 0
        for frame in container.decode(stream):
            if frame.pts is None or float(frame.pts * base) < clip.start - 0.5 / fps:
                continue
            if frame.is_corrupt:
                raise ValueError("it is damaged")
            time, expected = float(frame.pts * base), clip.start + number / fps
            if abs(time - expected) > 0.5 / fps:
                raise ValueError(f"the next frame is at {time:.6g} s, expected {expected:.6g} s")
            yield frame
            number += 1
