"""``positronic-to-lerobot info``: summary of a LeRobot dataset, from ``meta/`` alone."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import configuronic as cfn

from foundation import storage
from foundation.documents import Document
from foundation.text import printable
from getiaction.roots import pinned_dataset
from positronic.cli.kinds import DATASET, found_instead
from positronic.errors import DatasetError
from positronic.vendors.lerobot.conversion.output import Output
from positronic.vendors.lerobot.conversion.provenance import NAME, Provenance
from positronic.vendors.lerobot.dataset import layout
from positronic.vendors.lerobot.dataset.layout import Episode, Info
from positronic.vendors.lerobot.verification.metadata_checks import CONTRACT

# Encoder settings that affect quality and reading speed; the rest is in info.json.
_ENCODING = ("g", "crf", "preset")


class _Codec(Document):
    name: str


class _Contract(Document):
    codec: _Codec


@cfn.config()
def info(dataset_root: str) -> int:
    """Summarise a LeRobot dataset. Of one in S3 or on the Hub only meta/ is fetched.

    Example:
        positronic-to-lerobot info DATASET

    Args:
        dataset_root: The dataset's directory, s3://bucket/key, or hf://datasets/USER/NAME.
    """
    Output(dataset_root).settle()
    place = pinned_dataset(dataset_root)
    sizes = {name: entry.size for name, entry in storage.listing(place).items()}
    if layout.INFO not in sizes:
        near = found_instead(dataset_root, DATASET)
        raise DatasetError(
            f"{dataset_root} is not a LeRobot dataset: it has no {layout.INFO}{near}"
        )
    root = storage.fetch(place, only=lambda name: name.startswith("meta/"))
    for line in summary(dataset_root, root, sizes):
        print(line)
    return 0


def summary(name: str, root: Path, sizes: Mapping[str, int]) -> Iterator[str]:
    """Yield the summary of ``meta/`` in ``root``, line by line; ``sizes``: bytes of all files.

    Raises:
        DatasetError: a file of ``meta/`` cannot be read; the message names it.
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
    robot = said.said.robot_type
    yield f"format       LeRobot {printable(said.said.codebase_version)}" + (
        f", robot {printable(robot)}" if robot else ""
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
    """Numeric and text features; cameras have their own lines."""
    for name, feature in said.own.items():
        if feature["dtype"] in ("video", "image"):
            continue
        names = feature.get("names")
        listed = f" ({', '.join(map(str, names))})" if isinstance(names, list) else ""
        shape = "x".join(map(str, feature["shape"]))
        shown = f"{name}: {feature['dtype']} {shape}{listed}"
        yield f"feature      {printable(shown, 2000)}"


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
        yield f"camera       {printable(f'{key}: {", ".join(words)}', 400)}"
    for key in said.keys("image"):
        height, width = layout.size_of(said.features[key])
        yield f"camera       {printable(key)}: images {height}x{width}, in the tables"


def _tasks(root: Path, episodes: Sequence[Episode]) -> Iterator[str]:
    counts = Counter(task for episode in episodes for task in episode.tasks)
    for _, task in layout.read_tasks(root):
        yield f"task         {printable(repr(task), 1000)}: {counts[task]} episodes"


def _origin(root: Path) -> Iterator[str]:
    if (root / CONTRACT).is_file():
        content = layout.read_text(root, CONTRACT)
        codec = layout.READER.parse_json(content, _Contract, CONTRACT).codec
        yield f"codec        {printable(codec.name)}"
    if (root / NAME).is_file():
        provenance = Provenance.parse(layout.read_text(root, NAME))
        yield f"written      {printable(provenance.written)}"
        if provenance.versions:
            written_by = ", ".join(f"{name} {v}" for name, v in provenance.versions.items())
            yield f"by           {printable(written_by, 400)}"
        commits = dict.fromkeys(provenance.commits)
        if commits:
            yield f"commit       {printable(', '.join(commits), 400)}"
        if provenance.refused:
            yield f"left out     {len(provenance.refused)} recordings that were refused"
        for edits in provenance.edits:
            if edits.dropped:
                count, log = len(edits.dropped), edits.digest[:12]
                yield f"dropped      {count} recordings by edits ({edits.reasons}), log {log}"
    else:
        yield "written      not by positronic-to-lerobot"


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
