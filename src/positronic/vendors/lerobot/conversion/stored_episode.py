"""An encoded episode as a directory, from which the dataset can be assembled at any time.

::

    000123/
      episode.json           what is one value for the whole episode, and the statistics
      columns.npz            the rows' numbers, in their exact types
      <feature>.mp4          each camera's video
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from positronic.vendors.lerobot.conversion import durable
from positronic.vendors.lerobot.conversion.encode_episode import EncodedEpisode

DOCUMENT, ARRAYS = "episode.json", "columns.npz"
_SEPARATE = ("columns", "videos", "stats")


def save(episode: EncodedEpisode, unfinished: Path, folder: Path) -> None:
    """Make ``unfinished``, where the episode's videos are, the episode's directory ``folder``."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, values in episode.columns.items():
        if isinstance(values, np.ndarray):
            arrays[f"rows/{name}"] = values
        else:  # files of pictures, one after the other
            arrays[f"sizes/{name}"] = np.array([len(file) for file in values])
            arrays[f"files/{name}"] = np.frombuffer(b"".join(values), dtype=np.uint8)
    unfinished.mkdir(parents=True, exist_ok=True)
    np.savez(unfinished / ARRAYS, allow_pickle=False, **arrays)
    document = {key: value for key, value in vars(episode).items() if key not in _SEPARATE}
    document["videos"] = {name: path.name for name, path in episode.videos.items()}
    # JSON keeps a float64 to the bit, and forty small arrays would take longer than all else here.
    document["stats"] = {
        name: {kind: value.tolist() for kind, value in statistics.items()}
        for name, statistics in episode.stats.items()
    }
    (unfinished / DOCUMENT).write_text(json.dumps(document), encoding="utf-8")
    durable.sync_tree(unfinished)
    try:
        durable.rename(unfinished, folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster, with the very same
            raise


def load(folder: Path) -> EncodedEpisode:
    """The episode in the directory ``folder``."""
    document = json.loads((folder / DOCUMENT).read_text(encoding="utf-8"))
    videos = {name: folder / file for name, file in document.pop("videos").items()}
    stats = {
        name: {kind: np.array(value) for kind, value in statistics.items()}
        for name, statistics in document.pop("stats").items()
    }
    episode = EncodedEpisode(**document, videos=videos, stats=stats)
    with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
        for key in arrays.files:
            kind, name = key.split("/", 1)
            if kind == "rows":
                episode.columns[name] = arrays[key]
            elif kind == "files":
                ends = np.cumsum(arrays[f"sizes/{name}"])
                files = np.split(arrays[key], ends[:-1])
                episode.columns[name] = [file.tobytes() for file in files]
    return episode


def numbered(episodes: Path, index: int) -> Path:
    """The directory of episode ``index``."""
    return episodes / f"{index:06d}"


def unfinished(episodes: Path, index: int) -> Path:
    """Where this process prepares it; other processes, even orphaned ones, use other names."""
    return episodes / f"{index:06d}.{os.getpid()}"


def done(episodes: Path) -> list[int]:
    """Which episodes are whole, in order."""
    if not episodes.is_dir():
        return []
    names = [name for name in os.listdir(episodes) if name.isdigit()]
    return sorted(int(name) for name in names)


def clear_unfinished(episodes: Path) -> None:
    """Delete what a killed process left half done."""
    if episodes.is_dir():
        for entry in list(episodes.iterdir()):
            if not entry.name.isdigit():
                shutil.rmtree(entry, ignore_errors=True)
