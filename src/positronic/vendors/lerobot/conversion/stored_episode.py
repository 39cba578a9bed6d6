"""Stored episode: directory of an encoded episode, from which the dataset is assembled.

::

    000123/
      episode.json           values of the whole episode, statistics, pixel counts
      columns.npz            the rows' numbers, in their exact dtypes
      <feature>.mp4          each camera's video
"""

import json
import os
import shutil
from pathlib import Path
from typing import Annotated, Any
from zipfile import BadZipFile, is_zipfile

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from foundation.documents import Document, InvalidDocument, Reader, RelativeName, inside
from getiaction.dataset_info import Count, as_statistics
from positronic.errors import DatasetError
from positronic.vendors.lerobot.conversion import durable
from positronic.vendors.lerobot.conversion.encode_episode import EncodedEpisode
from positronic.vendors.lerobot.dataset.statistics import PixelCounts, Statistics

DOCUMENT, ARRAYS = "episode.json", "columns.npz"
READER = Reader(error=DatasetError, mend="remove its directory and continue with --resume=True")
_SEPARATE = ("columns", "videos", "stats", "pixels")
# Errors of np.load for a damaged file.
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, BadZipFile, NotImplementedError)

_Channel = Annotated[list[Count], Field(min_length=256, max_length=256)]
Pixels = Annotated[list[_Channel], Field(min_length=3, max_length=3)]


def _valid_statistics(document: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    as_statistics(document)
    return document


class StoredEpisode(Document):
    """``episode.json``; see `EncodedEpisode` for the fields."""

    source: str
    uid: str
    task: str
    robot_type: str | None
    length: Annotated[int, Field(ge=1, lt=2**31)]
    grip_stated: bool
    failed: bool = False
    videos: dict[str, RelativeName]
    stats: Annotated[dict[str, dict[str, Any]], AfterValidator(_valid_statistics)]
    pixels: dict[str, Pixels]


def save(episode: EncodedEpisode, unfinished: Path, folder: Path) -> None:
    """Write the episode to ``unfinished``, which has its videos, and rename it to ``folder``."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, values in episode.columns.items():
        if isinstance(values, np.ndarray):
            arrays[f"rows/{name}"] = values
        else:  # PNG files, concatenated
            arrays[f"sizes/{name}"] = np.array([len(file) for file in values])
            arrays[f"files/{name}"] = np.frombuffer(b"".join(values), dtype=np.uint8)
    unfinished.mkdir(parents=True, exist_ok=True)
    np.savez(unfinished / ARRAYS, allow_pickle=False, **arrays)
    document = {key: value for key, value in vars(episode).items() if key not in _SEPARATE}
    document["videos"] = {name: path.name for name, path in episode.videos.items()}
    # JSON keeps float64 exactly, and is much faster than forty small arrays.
    document["stats"] = {
        name: {kind: value.tolist() for kind, value in statistics.items()}
        for name, statistics in episode.stats.items()
    }
    document["pixels"] = {name: counts.tolist() for name, counts in episode.pixels.items()}
    (unfinished / DOCUMENT).write_text(json.dumps(document), encoding="utf-8")
    durable.sync_tree(unfinished)
    try:
        durable.rename(unfinished, folder)
    except OSError:
        if not folder.is_dir():  # else another process stored the same episode first
            raise


def load(folder: Path) -> EncodedEpisode:
    """The episode in the directory ``folder``.

    Raises:
        DatasetError: it is damaged, or of a version without pixel counts.
    """
    document = READER.load_json(folder / DOCUMENT, StoredEpisode)
    simple = {name: getattr(document, name) for name in StoredEpisode.model_fields}
    try:
        videos = {name: inside(folder, file) for name, file in document.videos.items()}
    except InvalidDocument as error:
        raise READER.refusal(str(error)) from error
    given = {
        "videos": videos,
        "stats": {name: _arrays(statistics) for name, statistics in document.stats.items()},
        "pixels": {name: _counts(counts) for name, counts in document.pixels.items()},
    }
    episode = EncodedEpisode(**simple | given)
    try:
        _read_columns(folder / ARRAYS, episode)
    except _UNREADABLE as error:
        raise READER.refusal(f"{folder / ARRAYS} cannot be read: {error}") from error
    return episode


def _arrays(statistics: dict[str, Any]) -> Statistics:
    return {
        kind: np.array(value, dtype=np.int64 if kind == "count" else np.float64)
        for kind, value in statistics.items()
    }


def _counts(counts: list[list[int]]) -> PixelCounts:
    return np.array(counts, dtype=np.int64)


def _read_columns(path: Path, episode: EncodedEpisode) -> None:
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            kind, name = key.split("/", 1)
            if kind == "rows":
                episode.columns[name] = arrays[key]
            elif kind == "files":
                ends = np.cumsum(arrays[f"sizes/{name}"])
                files = np.split(arrays[key], ends[:-1])
                episode.columns[name] = [file.tobytes() for file in files]
    for name, values in episode.columns.items():
        if len(values) != episode.length:
            raise ValueError(f"{name} has {len(values)} rows, expected {episode.length}")


def numbered(episodes: Path, index: int) -> Path:
    """The directory of episode ``index``."""
    return episodes / f"{index:06d}"


def unfinished(episodes: Path, index: int) -> Path:
    """The directory in which this process prepares it; the pid makes it unique."""
    return episodes / f"{index:06d}.{os.getpid()}"


def done(episodes: Path) -> list[int]:
    """Indices of the stored episodes, in order."""
    if not episodes.is_dir():
        return []
    names = [name for name in os.listdir(episodes) if name.isdigit()]
    return sorted(int(name) for name in names)


def clear_unfinished(episodes: Path) -> None:
    """Delete incomplete, damaged and outdated episodes."""
    if not episodes.is_dir():
        return
    for entry in list(episodes.iterdir()):
        if not (entry.name.isdigit() and _is_complete(entry)):
            shutil.rmtree(entry, ignore_errors=True)


def _is_complete(folder: Path) -> bool:
    """Return whether all files exist; the rows, maybe gigabytes of images, are read later."""
    try:
        document = READER.load_json(folder / DOCUMENT, StoredEpisode)
    except (OSError, DatasetError):
        return False
    return is_zipfile(folder / ARRAYS) and all(
        (folder / name).is_file() for name in document.videos.values()
    )
