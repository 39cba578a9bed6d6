"""Replay of a recorded rollout for the report: its video and the curves of its signals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from positronic.inference.video import encode_mp4, side_by_side

CURVES = (
    "robot_state.ee_pose",
    "robot_commands.pose",
    "grip",
    "target_grip",
    "object_poses",
)


@dataclass(frozen=True)
class Curve:
    """A sampled signal: ``times`` (n,) in seconds, ``values`` (n,) or (n, d)."""

    times: NDArray[np.float64]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class Replay:
    """Data of a recorded rollout for the report; ``video`` is an MP4, None without cameras."""

    curves: Mapping[str, Curve]
    object_names: Sequence[str] = ()
    cameras: Sequence[str] = ()
    video: bytes | None = None
    video_size: tuple[int, int] = (0, 0)

    @property
    def duration(self) -> float:
        """Seconds from the first to the last sample."""
        return max((float(c.times[-1]) for c in self.curves.values() if len(c.times)), default=0.0)


def load_replay(path: Path) -> Replay:
    """Read a recorded episode and encode its video.

    Raises:
        EpisodeError: the recording is damaged.
    """
    from positronic.dataset import DiskEpisode, VideoSignal

    episode = DiskEpisode(path)
    signals = episode.signals
    curves = {}
    for name in CURVES:
        if name in signals:
            times = signals[name].timestamps() / 1e9
            curves[name] = Curve(times, np.asarray(signals[name].values(), dtype=np.float64))
    videos = {name: s for name, s in signals.items() if isinstance(s, VideoSignal)}
    video, size = None, (0, 0)
    if videos:
        rows = zip(*(signal.frames() for signal in videos.values()), strict=True)
        video, size = encode_mp4(map(side_by_side, rows), float(episode.static["control_fps"]))
    names = tuple(episode.static.get("object_names", ()))
    return Replay(curves, names, tuple(videos), video, size)
