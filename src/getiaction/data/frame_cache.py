"""Disk cache of decoded video frames, memory-mapped by all processes and runs that read them.

An entry is a directory named by a digest of its inputs: the content of the video files, the
timestamp of each row in them, and the decoder. It is written under another name and renamed when
complete, by one process while others wait. The cache directory, by default below
``$XDG_CACHE_HOME``, is limited in size: the least recently used entries that are not in use are
evicted.
"""

import fcntl
import hashlib
import json
import logging
import math
import os
import shutil
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import av
import numpy as np
from pydantic import Field

from foundation.cache import cache_root, evict, exclusive
from foundation.documents import InvalidDocument, Reader, inside
from foundation.files import sync
from getiaction.data.frames import Frames, Pixels, Rows, VideoFrames, decode_into
from getiaction.errors import GetiactionError

logger = logging.getLogger(__name__)

READER = Reader(mend="it is decoded again")
# (N, C, H, W) of a camera's frames.
Shape = Annotated[list[Annotated[int, Field(gt=0)]], Field(min_length=4, max_length=4)]

GIB = 1 << 30
ENTRY = "entry.json"
PARTIAL, LOCK = ".partial", ".lock"
# Number of frames of each camera that are decoded and compared when an entry is opened.
PROBES = 4


@dataclass(frozen=True)
class CacheLimits:
    """Limits of decoded frames in bytes: in memory, and on the disk for all datasets."""

    memory: int = GIB
    disk: int = 32 * GIB
    #: Cache directory; ``$XDG_CACHE_HOME/getiaction/frames`` unless given.
    directory: Path | None = None


class MappedFrames(Frames):
    """The memory-mapped frames of an entry, which is pinned while this object exists.

    Args:
        entry: Its directory.
        shapes: (N, C, H, W) by camera.
        lock: Descriptor of its ``entry.json``, locked against eviction; closed at the end.
    """

    decodes = False

    def __init__(self, entry: Path, shapes: dict[str, tuple[int, ...]], lock: int) -> None:
        weakref.finalize(self, os.close, lock)
        self._entry = entry
        self._shapes = shapes
        self._map()

    def read(self, key: str, rows: Rows) -> Pixels:
        """Return the frames of camera ``key`` at ``rows`` (...): uint8 (..., C, H, W)."""
        pixels: Pixels = self._frames[key][rows]
        return pixels

    def _map(self) -> None:
        self._frames = {
            key: np.memmap(self._entry / key, np.uint8, "r", shape=shape)
            for key, shape in self._shapes.items()
        }

    def __getstate__(self) -> dict[str, Any]:
        # Worker processes map the files themselves; their parent holds the lock.
        return {"_entry": self._entry, "_shapes": self._shapes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._map()


def kept_on_disk(frames: VideoFrames, limits: CacheLimits) -> MappedFrames:
    """Return ``frames`` decoded, from the cache, adding them if necessary.

    Raises:
        GetiactionError: there is not enough space, or the files cannot be written.
    """
    home = limits.directory or default_directory()
    entry = home / digest_of(frames)
    try:
        with exclusive(entry.with_suffix(LOCK), _tell_of_waiting):
            found = _opened(entry, frames)
            if found is None:
                _make(entry, frames, limits)
                found = _opened(entry, frames)
    except OSError as error:
        raise GetiactionError(
            f"decoded frames cannot be cached in {home}: {error.strerror or error}; choose another "
            "directory by XDG_CACHE_HOME, or train without cache='disk'"
        ) from error
    assert found is not None
    return found


def default_directory() -> Path:
    """The default directory of decoded frames, below :func:`~foundation.cache.cache_root`."""
    return cache_root() / "getiaction" / "frames"


def digest_of(frames: VideoFrames) -> str:
    """Digest of everything that determines ``frames``, independent of the dataset's path."""
    digest = hashlib.sha256(f"1 {_decoder(frames.backend)} {frames.tolerance_s}".encode())
    for key in frames.keys:
        digest.update(f"\n{key}\n".encode())
        digest.update(frames.places[key].tobytes() + frames.seconds[key].tobytes())
        for path in frames.files[key]:
            with path.open("rb") as video:
                digest.update(hashlib.file_digest(video, "sha256").digest())
    return digest.hexdigest()[:32]


def _decoder(backend: str) -> str:
    if backend == "torchcodec":
        import torchcodec

        return f"torchcodec {torchcodec.__version__} {torchcodec.ffmpeg_major_version}"
    return f"PyAV {av.__version__} {av.library_versions}"


def _tell_of_waiting() -> None:
    logger.info("waiting for another process that decodes the same frames")


def _opened(entry: Path, frames: VideoFrames) -> MappedFrames | None:
    """The entry, if it exists and is complete."""
    try:
        lock = os.open(entry / ENTRY, os.O_RDONLY)
    except FileNotFoundError:
        return None
    fcntl.flock(lock, fcntl.LOCK_SH)
    try:
        said = READER.load_json(entry / ENTRY, dict[str, Shape])
        if said.keys() != set(frames.keys):
            raise ValueError(f"{ENTRY} has other cameras")
        shapes = {key: tuple(said[key]) for key in frames.keys}
        sizes = {key: inside(entry, key).stat().st_size for key in frames.keys}
        if sizes != {key: math.prod(shapes[key]) for key in frames.keys}:
            raise ValueError("a file has the wrong size")
        kept = MappedFrames(entry, shapes, lock)
    except (ValueError, OSError, InvalidDocument) as error:
        os.close(lock)
        logger.warning("decoding again, because %s is damaged: %s", entry, error)
        return None
    if not _matches_videos(kept, frames):
        logger.warning("decoding again, because frames in %s differ from the videos'", entry)
        return None
    os.utime(entry / ENTRY)
    return kept


def _matches_videos(kept: MappedFrames, frames: VideoFrames) -> bool:
    """Compare a few frames with newly decoded ones."""
    rows = np.random.default_rng().integers(len(frames), size=PROBES)
    return all(np.array_equal(kept.read(key, rows), frames.read(key, rows)) for key in frames.keys)


def _make(entry: Path, frames: VideoFrames, limits: CacheLimits) -> None:
    shapes = {key: frames.shape(key) for key in frames.keys}
    size = sum(int(np.prod(shape)) for shape in shapes.values())
    shutil.rmtree(entry, ignore_errors=True)
    partial = entry.with_suffix(PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)  # left by a killed process
    _evict_until_fits(entry.parent, size, limits.disk)
    partial.mkdir()
    try:
        targets = {key: _allocated(inside(partial, key), shape) for key, shape in shapes.items()}
        decode_into(frames, targets)
        for target in targets.values():
            target.flush()
        (partial / ENTRY).write_text(json.dumps(shapes))
        sync(partial / ENTRY)
        partial.rename(entry)
        sync(entry.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _allocated(path: Path, shape: tuple[int, ...]) -> Any:
    with path.open("wb") as file:
        # Reserve the blocks: otherwise a full disk raises SIGBUS on a later write.
        os.posix_fallocate(file.fileno(), 0, int(np.prod(shape)))
    return np.memmap(path, np.uint8, "r+", shape=shape)


def _evict_until_fits(home: Path, size: int, most: int) -> None:
    """Evict unused entries, least recently used first, until ``size`` more bytes fit."""
    entries = sorted(home.glob(f"*/{ENTRY}"), key=lambda path: path.stat().st_mtime)
    orphans = [path for path in home.glob(f"*{PARTIAL}") if path.is_dir()]
    kept = {path.parent: _bytes_below(path.parent) for path in entries}
    for orphan in orphans:
        evict(orphan, orphan.with_suffix(LOCK))
    for entry in list(kept):
        if _room(home, kept, most) >= size:
            return
        if evict(entry, entry / ENTRY):
            del kept[entry]
    room = _room(home, kept, most)
    if room < size:
        raise GetiactionError(
            f"the decoded frames take {size / GIB:.1f} GiB, but only {max(room, 0) / GIB:.1f} GiB "
            f"are available in {home}; raise the limit, free some space, or train without "
            "cache='disk'"
        )


def _room(home: Path, kept: dict[Path, int], most: int) -> int:
    return min(most - sum(kept.values()), shutil.disk_usage(home).free)


def _bytes_below(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())
