"""``positronic-to-lerobot info``: what is in a LeRobot dataset, from ``meta/`` alone."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import configuronic as cfn

from positronic import storage
from positronic.errors import DatasetError
from positronic.vendors.lerobot.verification import layout
from positronic.vendors.lerobot.verification.layout import Episode, Info
from positronic.vendors.lerobot.verification.metadata_checks import CONTRACT, PROVENANCE

# What decides how a video looks and how fast it is read; the rest is in info.json.
_ENCODING = ("g", "crf", "preset")


@cfn.config()
def info(dataset_root: str) -> int:
    """Say what is in a LeRobot dataset. Of one on s3:// only meta/ is fetched.

    Args:
        dataset_root: The dataset's directory, or s3://bucket/key.
    """
    sizes = {name: entry.size for name, entry in storage.listing(dataset_root).items()}
    if layout.INFO not in sizes:
        raise DatasetError(f"{dataset_root} is not a LeRobot dataset: it has no {layout.INFO}")
    root = storage.fetch(dataset_root, only=lambda name: name.startswith("meta/"))
    for line in summary(dataset_root, root, sizes):
        print(line)
    return 0


def summary(name: str, root: Path, sizes: Mapping[str, int]) -> Iterator[str]:
    """What ``meta/`` in ``root`` says, in lines; ``sizes`` are those of all files, in bytes.

    Raises:
        DatasetError: a file of ``meta/`` cannot be read; it is named.
    """
    said = layout.read_info(root)
    episodes = [
        episode
        for table in layout.episode_tables(root)
        for episode in layout.read_episodes(root, table, said)
    ]
    lengths = [episode.length for episode in episodes]
    hours = sum(lengths) / said.fps / 3600
    yield f"dataset      {name}"
    yield f"format       LeRobot {said.version}" + (
        f", robot {said.robot_type}" * bool(said.robot_type)
    )
    yield f"episodes     {len(episodes)}" + _spread(lengths, said.fps)
    yield f"frames       {sum(lengths)} at {said.fps:g} fps, {hours:.2f} h"
    yield f"size         {_bytes(sum(sizes.values()))} in {len(sizes)} files"
    yield from _features(said)
    yield from _cameras(said, episodes, sizes)
    yield from _tasks(root, episodes)
    yield from _origin(root)


def _spread(lengths: Sequence[int], fps: float) -> str:
    if not lengths:
        return ""
    return f", {min(lengths) / fps:.1f} s to {max(lengths) / fps:.1f} s long"


def _features(said: Info) -> Iterator[str]:
    """Those that are numbers or text; cameras have lines of their own."""
    for name, feature in said.own.items():
        if feature["dtype"] in ("video", "image"):
            continue
        names = feature.get("names")
        listed = f" ({', '.join(map(str, names))})" if isinstance(names, list) else ""
        shape = "x".join(map(str, feature["shape"]))
        yield f"feature      {name}: {feature['dtype']} {shape}{listed}"


def _cameras(said: Info, episodes: Sequence[Episode], sizes: Mapping[str, int]) -> Iterator[str]:
    for key in said.keys("video"):
        files = {episode.videos[key].file for episode in episodes}
        size = sum(sizes.get(file, 0) for file in files)
        frames = max(1, sum(episode.length for episode in episodes))
        noted = said.features[key].get("info") or {}
        height, width = layout.size_of(said.features[key])
        words = [
            f"{noted.get('video.codec', 'video')} {height}x{width}",
            *(f"{n} {noted[f'video.{n}']}" for n in _ENCODING if f"video.{n}" in noted),
            f"{_bytes(size)}, {_bytes(size / frames)} a frame",
        ]
        yield f"camera       {key}: {', '.join(words)}"
    for key in said.keys("image"):
        height, width = layout.size_of(said.features[key])
        yield f"camera       {key}: pictures {height}x{width}, inside the tables"


def _tasks(root: Path, episodes: Sequence[Episode]) -> Iterator[str]:
    counts = Counter(task for episode in episodes for task in episode.tasks)
    for _, task in layout.read_tasks(root):
        yield f"task         {task!r}: {counts[task]} episodes"


def _origin(root: Path) -> Iterator[str]:
    if (root / CONTRACT).is_file():
        contract = layout.read_json(root, CONTRACT)
        yield f"codec        {_at(contract, 'codec', 'name')}"
    if (root / PROVENANCE).is_file():
        document = layout.read_json(root, PROVENANCE)
        yield f"written      {_at(document, 'written')}"
        versions = _at(document, "versions")
        if isinstance(versions, dict):
            yield "by           " + ", ".join(f"{name} {v}" for name, v in versions.items())
        commits = dict.fromkeys(_commits(document))
        if commits:
            yield f"commit       {', '.join(commits)}"
        refused = _at(document, "refused")
        if refused:
            yield f"left out     {len(refused)} recordings that were refused"
    else:
        yield "written      not by positronic-to-lerobot"


def _commits(document: Any) -> Iterator[str]:
    """Of the project when it wrote the dataset, and at each append to it."""
    appended = _at(document, "appended")
    for record in (document, *(appended if isinstance(appended, list) else ())):
        if found := _at(record, "commit"):
            yield str(found)


def _at(document: Any, *keys: str) -> Any:
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
