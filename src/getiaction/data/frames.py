"""Camera frames of a whole dataset, decoded once and kept as uint8."""

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from lerobot.datasets import LeRobotDataset
from lerobot.datasets.video_utils import decode_video_frames
from lerobot.utils.import_utils import get_safe_default_video_backend
from torch import Tensor
from tqdm import tqdm

from getiaction.errors import GetiactionError

logger = logging.getLogger(__name__)

GIB = 1 << 30
# A call opens the file and seeks once; this many frames spread that cost and stay small in memory.
MAX_FRAMES_PER_CALL = 256
MAX_BYTES_PER_CALL = 64 << 20


@dataclass(frozen=True)
class CacheLimits:
    """How much may be kept: in memory up to the first bound, in a file up to the second (bytes)."""

    memory: int = GIB
    disk: int = 8 * GIB
    directory: Path | None = None


@cache
def video_backend() -> str:
    """The name of LeRobot's decoder that works here, found without pages of warnings.

    LeRobot tries torchcodec again, and logs six tracebacks again, whenever it is not told.
    """
    log = logging.getLogger("lerobot.utils.import_utils")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        backend: str = get_safe_default_video_backend()
    finally:
        log.setLevel(level)
    return backend


def decoded_bytes(dataset: LeRobotDataset) -> int:
    """Size in bytes of all camera frames of ``dataset`` as uint8."""
    shapes = [dataset.meta.features[key]["shape"] for key in dataset.meta.camera_keys]
    return sum(int(np.prod(shape)) for shape in shapes) * len(dataset)


def room_for(size: int, limits: CacheLimits) -> bool:
    """Whether ``size`` bytes of frames may be kept under ``limits``."""
    if size <= limits.memory:
        return True
    free = shutil.disk_usage(limits.directory or tempfile.gettempdir()).free
    return size <= min(limits.disk, free)


def allocate(key: str, shape: tuple[int, ...], *, in_memory: bool, limits: CacheLimits) -> Tensor:
    """Make an empty uint8 tensor of ``shape``, in memory or over a file that no name points to.

    The file is unlinked at once, so that a killed process leaves nothing behind.
    """
    if in_memory:
        return torch.empty(shape, dtype=torch.uint8)
    with tempfile.NamedTemporaryFile(prefix=f"frames-{key}-", dir=limits.directory) as file:
        # Without its blocks reserved, a full disk would show as a bus error on some later write.
        os.posix_fallocate(file.fileno(), 0, int(np.prod(shape)))
        return torch.from_numpy(np.memmap(file.name, dtype=np.uint8, mode="w+", shape=shape))


def decode_videos(
    dataset: LeRobotDataset, timestamps: Tensor, *, in_memory: bool, limits: CacheLimits
) -> dict[str, Tensor]:
    """Decode every video frame of ``dataset`` with LeRobot's decoder.

    Args:
        dataset: Of N frames; each video key has one frame a row.
        timestamps: float32 (N,), seconds from the episode's start.
        in_memory: Whether the result may live in memory; else in a mapped temporary file.
        limits: Where that file goes.

    Returns:
        uint8 (N, C, H, W) by video key.
    """
    keys: list[str] = list(dataset.meta.video_keys)
    total = len(keys) * len(dataset)
    interactive = sys.stderr.isatty()
    if total and not interactive:
        logger.info("decoding %d frames of %s once", total, ", ".join(keys))
    with (
        tqdm(
            total=total, desc="decoding", unit="frame", disable=not (interactive and total)
        ) as progress,
        # One thread a camera, as LeRobot does: a decoder is not safe to share between threads.
        ThreadPoolExecutor(max_workers=max(1, len(keys))) as pool,
    ):

        def decode(key: str) -> Tensor:
            frames: Tensor | None = None
            for rows, chunk in _chunks(dataset, key, timestamps):
                if frames is None:
                    shape = (len(dataset), *chunk.shape[1:])
                    frames = allocate(key, shape, in_memory=in_memory, limits=limits)
                frames[rows] = chunk
                progress.update(len(chunk))
            assert frames is not None
            return frames

        return dict(zip(keys, pool.map(decode, keys), strict=True))


def _chunks(
    dataset: LeRobotDataset, key: str, timestamps: Tensor
) -> Iterator[tuple[slice, Tensor]]:
    """Yield runs of rows of one episode with their decoded frames."""
    meta: Any = dataset.meta
    size = max(1, MAX_BYTES_PER_CALL // int(np.prod(meta.features[key]["shape"])))
    size = min(size, MAX_FRAMES_PER_CALL)
    row = 0
    for episode in episodes_of(dataset):
        record = meta.episodes[episode]
        begin = record[f"videos/{key}/from_timestamp"]
        path = dataset.root / meta.get_video_file_path(episode, key)
        end = row + record["dataset_to_index"] - record["dataset_from_index"]
        while row < end:
            rows = slice(row, min(row + size, end))
            # The same sum of the same numbers as LeRobot's reader, so that the same frame is taken.
            wanted = [begin + seconds for seconds in timestamps[rows].tolist()]
            yield rows, _decode(dataset, path, episode, wanted)
            row = rows.stop


def _decode(dataset: LeRobotDataset, path: Path, episode: int, seconds: list[float]) -> Tensor:
    try:
        frames: Tensor = decode_video_frames(
            path, seconds, dataset.tolerance_s, dataset._video_backend, return_uint8=True
        )
    except (av.FFmpegError, OSError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise GetiactionError(
            f"{path} cannot be decoded for episode {episode} of the dataset: {reason}; "
            "convert it again"
        ) from error
    return frames


def episodes_of(dataset: LeRobotDataset) -> list[int]:
    """Episode indices of ``dataset`` in the order of its rows."""
    if dataset.episodes is None:
        return list(range(dataset.meta.total_episodes))
    return sorted(dataset.episodes)
