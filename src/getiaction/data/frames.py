"""Camera frames of a dataset by row: decoded on demand, or decoded once and held in memory."""

import logging
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from lerobot.datasets import LeRobotDataset
from lerobot.utils.import_utils import get_safe_default_video_backend
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from getiaction.data.episodes import episode_column, episode_lengths, episodes_of
from getiaction.data.video_readers import ReaderPool
from getiaction.errors import GetiactionError

logger = logging.getLogger(__name__)

# More threads gain little, and training needs CPU time too.
THREADS = min(4, len(os.sched_getaffinity(0)))
# Size of the chunks in which a whole dataset is decoded.
BYTES_PER_READ = 16 << 20

type Rows = NDArray[np.intp]
type Pixels = NDArray[np.uint8]


@cache
def video_backend() -> str:
    """Name of the LeRobot decoder available here, found once and without its warnings.

    Otherwise LeRobot tries torchcodec again each time, and logs six tracebacks.
    """
    log = logging.getLogger("lerobot.utils.import_utils")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        backend: str = get_safe_default_video_backend()
    finally:
        log.setLevel(level)
    return backend


class Frames(ABC):
    """The frames of every camera of a dataset."""

    #: Whether reading is slow enough to prefetch in threads.
    decodes: bool

    @abstractmethod
    def read(self, key: str, rows: Rows) -> Pixels:
        """Return the frames of camera ``key`` at ``rows`` (...): uint8 (..., C, H, W)."""


class HeldFrames(Frames):
    """Frames in memory, shared with worker processes.

    Args:
        frames: uint8 (N, C, H, W) by camera.
    """

    decodes = False

    def __init__(self, frames: Mapping[str, Tensor]) -> None:
        self._frames = dict(frames)

    def read(self, key: str, rows: Rows) -> Pixels:
        """Return the frames of camera ``key`` at ``rows`` (...): uint8 (..., C, H, W)."""
        # NumPy copies whole frames, where torch's indexing copies element by element.
        pixels: Pixels = self._frames[key].numpy()[rows]
        return pixels


class VideoFrames(Frames):
    """Frames decoded from the video files of ``dataset``, all frames of a batch per file at once.

    Bit for bit equal to LeRobot's decoder, which decodes sample by sample. Thread-safe.

    Args:
        dataset: Dataset of N rows, with videos.
        timestamps: float32 (N,), seconds from the start of the episode.
    """

    def __init__(self, dataset: LeRobotDataset, timestamps: NDArray[np.float32]) -> None:
        self.keys: list[str] = list(dataset.meta.video_keys)
        self.decodes = bool(self.keys)
        self.backend = str(dataset._video_backend)
        self.tolerance_s = dataset.tolerance_s
        self._pool = ReaderPool(self.backend, dataset.tolerance_s)
        lengths = episode_lengths(dataset)
        #: Episode of each row.
        self._episodes = np.repeat(episodes_of(dataset), lengths)
        #: By camera: the files, and for each row the file's index and the time in it, in seconds.
        self.files: dict[str, list[Path]] = {}
        self.places: dict[str, NDArray[np.int64]] = {}
        self.seconds: dict[str, NDArray[np.float64]] = {}
        for key in self.keys:
            self.files[key], places = _files(dataset, key)
            self.places[key] = np.repeat(places, lengths)
            begins = np.repeat(episode_column(dataset, f"videos/{key}/from_timestamp"), lengths)
            # Computed like LeRobot's reader, so that rounding selects the same frame.
            self.seconds[key] = begins + timestamps.astype(np.float64)

    def __len__(self) -> int:
        return len(self._episodes)

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape (N, C, H, W) of all frames of camera ``key``."""
        return (len(self), *self.read(key, np.zeros(1, np.intp)).shape[1:])

    def read(self, key: str, rows: Rows) -> Pixels:
        """Return the frames of camera ``key`` at ``rows`` (...): uint8 (..., C, H, W).

        Raises:
            GetiactionError: a file cannot be decoded, or has no frame at a timestamp.
        """
        wanted = rows.reshape(-1)
        places, seconds = self.places[key][wanted], self.seconds[key][wanted]
        frames: Pixels | None = None
        for place in np.unique(places):
            slots = np.flatnonzero(places == place)
            slots = slots[np.argsort(seconds[slots], kind="stable")]
            path = self.files[key][place]
            try:
                with self._pool.reader(path) as reader:
                    found = reader.frames(seconds[slots].tolist())
                    for slot, frame in zip(slots, found, strict=True):
                        if frames is None:
                            frames = np.empty((len(wanted), *frame.shape), np.uint8)
                        frames[slot] = frame
            except (av.FFmpegError, OSError, ValueError, RuntimeError) as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise GetiactionError(
                    f"{path} cannot be decoded for episode {self._episodes[wanted[slots[0]]]} of "
                    f"the dataset: {reason}; convert it again"
                ) from error
        assert frames is not None
        return frames.reshape(*rows.shape, *frames.shape[1:])


def _files(dataset: LeRobotDataset, key: str) -> tuple[list[Path], NDArray[np.int64]]:
    """The video files of camera ``key``, and the index of each episode's file."""
    meta: Any = dataset.meta
    names = [f"videos/{key}/{part}_index" for part in ("chunk", "file")]
    numbers = np.stack([episode_column(dataset, name) for name in names], axis=1)
    _, firsts, places = np.unique(numbers, axis=0, return_index=True, return_inverse=True)
    episodes = episodes_of(dataset)[firsts].tolist()
    files = [Path(dataset.root / meta.get_video_file_path(episode, key)) for episode in episodes]
    return files, places.reshape(-1)


def decode_into(frames: VideoFrames, targets: Mapping[str, Pixels]) -> None:
    """Decode every frame of ``frames`` into ``targets``: uint8 (N, C, H, W) by camera."""
    chunks = []
    for key, target in targets.items():
        size = max(1, BYTES_PER_READ // max(1, target[0].nbytes))
        for begin in range(0, len(target), size):
            chunks.append((key, np.arange(begin, min(begin + size, len(target)))))
    total = sum(len(target) for target in targets.values())
    interactive = sys.stderr.isatty()
    if total and not interactive:
        logger.info("decoding %d frames of %s once", total, ", ".join(targets))
    with (
        tqdm(total=total, desc="decoding", unit="frame", disable=not interactive) as progress,
        ThreadPoolExecutor(THREADS) as pool,
    ):

        def decode(chunk: tuple[str, Rows]) -> None:
            key, rows = chunk
            targets[key][rows[0] : rows[-1] + 1] = frames.read(key, rows)
            progress.update(len(rows))

        try:
            for _ in pool.map(decode, chunks):
                pass
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def held_in_memory(frames: VideoFrames) -> HeldFrames:
    """Decode all of ``frames`` into memory."""
    held = {key: torch.empty(frames.shape(key), dtype=torch.uint8) for key in frames.keys}
    decode_into(frames, {key: tensor.numpy() for key, tensor in held.items()})
    return HeldFrames(held)
