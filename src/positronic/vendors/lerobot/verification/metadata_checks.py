"""Metadata checks: consistency of a LeRobot dataset's ``meta/``, and with its files."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from foundation.documents import InvalidDocument, inside, plain
from foundation.text import printable
from getiaction.dataset_info import Statistics
from positronic.codec import Contract, stats_digest
from positronic.codec.contract import FILE_NAME
from positronic.errors import ContractError, DatasetError
from positronic.vendors.lerobot.conversion.provenance import NAME as PROVENANCE
from positronic.vendors.lerobot.conversion.provenance import Provenance
from positronic.vendors.lerobot.dataset import layout
from positronic.vendors.lerobot.dataset.fault import REPAIR, Fault, listed
from positronic.vendors.lerobot.dataset.layout import Episode, Info

CONTRACT = f"meta/{FILE_NAME}"
# Directories in which an unreferenced file may be read anyway, or is left from an interruption.
_OWNED = ("data", "videos", "images", "meta")


def is_ours(root: Path) -> bool:
    """Return whether `positronic-to-lerobot` wrote the dataset, which then has stricter checks."""
    return any((root / name).exists() for name in (CONTRACT, PROVENANCE))


def info_faults(
    info: Info, episodes: Sequence[Episode], tasks: Sequence[tuple[int, str]]
) -> Iterator[Fault]:
    """Counts and columns of ``info.json``."""
    counted = {
        "total_episodes": (info.said.total_episodes, len(episodes)),
        "total_frames": (info.said.total_frames, sum(episode.length for episode in episodes)),
        "total_tasks": (info.said.total_tasks, len(tasks)),
    }
    for name, (stated, actual) in counted.items():
        if stated != actual:
            yield Fault(layout.INFO, f"{name} is {stated}, the tables have {actual}")
    for name, dtype in layout.COUNTERS.items():
        feature = info.features.get(name)
        if feature is None or feature["dtype"] != dtype or tuple(feature["shape"]) != (1,):
            yield Fault(layout.INFO, f"feature {name} is not {dtype} of shape (1,)")
    for name, span in (info.said.splits or {}).items():
        ends = re.fullmatch(r"([0-9]{1,15}):([0-9]{1,15})", str(span))
        if ends is None or not int(ends[1]) <= int(ends[2]) <= len(episodes):
            found = f"split {printable(name)} is {printable(repr(span))}"
            yield Fault(layout.INFO, f"{found}, there are {len(episodes)} episodes")


def task_faults(tasks: Sequence[tuple[int, str]]) -> Iterator[Fault]:
    """Check that task indices are row numbers, by which LeRobot looks them up, and unique."""
    for place, (index, task) in enumerate(tasks):
        if index != place:
            text = f"task_index of {task!r} is {index}, expected {place}"
            yield Fault(layout.TASKS, text)
    for task, times in Counter(task for _, task in tasks).items():
        if times > 1:
            yield Fault(layout.TASKS, f"{task!r} occurs {times} times")


def episode_faults(
    episodes: Sequence[Episode], tasks: Sequence[tuple[int, str]]
) -> Iterator[Fault]:
    """Numbers, spans and tasks of the episodes table, in the order of its files."""
    known = {task for _, task in tasks}
    expected = 0
    for place, episode in enumerate(episodes):

        def fault(text: str, episode: Episode = episode) -> Fault:
            return Fault(episode.table, text, episode.index)

        if episode.index != place:
            yield fault(f"is in row {place}, where episode {place} is expected")
        if episode.length < 1:
            yield fault(f"its length is {episode.length}, expected at least 1")
        if episode.stop - episode.start != episode.length:
            yield fault(
                f"dataset_from_index {episode.start} to dataset_to_index {episode.stop} are"
                f" {episode.stop - episode.start} rows, its length is {episode.length}"
            )
        if episode.start != expected:
            yield fault(f"dataset_from_index is {episode.start}, expected {expected}")
        expected = episode.start + episode.length
        unknown = set(episode.tasks) - known
        if unknown or not episode.tasks:
            said = ", ".join(map(repr, sorted(unknown))) or "none"
            yield fault(f"its tasks are not in {layout.TASKS}: {said}")


def stats_faults(recorded: dict[str, Statistics], info: Info) -> Iterator[Fault]:
    """Missing and non-finite values in ``stats.json``."""
    for feature, stats in recorded.items():
        if not all(np.isfinite(array).all() for array in stats.values()):
            yield Fault(layout.STATS, f"{printable(feature)}: has NaN or infinity", mend=REPAIR)
    texts = info.keys(*layout.TEXT)
    missing = [name for name in info.own if name not in recorded and name not in texts]
    if missing and recorded:
        text = f"no statistics of {', '.join(map(printable, missing))}"
        yield Fault(layout.STATS, text, mend=REPAIR)


def contract_faults(root: Path, info: Info, recorded: dict[str, Statistics]) -> Iterator[Fault]:
    """Check that the contract matches the dataset: features, fps, digest of the statistics."""
    try:
        contract = Contract.load(root / CONTRACT)
        contract.make_codec()
    except (ContractError, DatasetError) as error:
        text = str(error).replace(f"{root / CONTRACT}: ", "").replace(f"{root / CONTRACT} ", "")
        yield Fault(CONTRACT, text)
        return
    except Exception as error:  # a codec that this version cannot create
        yield Fault(CONTRACT, f"its codec cannot be created: {layout.one_line(error)}")
        return
    ours = plain({n: _bare(f) for n, f in info.own.items()})
    for name in dict.fromkeys([*contract.features, *ours]):
        stated, actual = contract.features.get(name), ours.get(name)
        if stated is None or actual is None:
            where = layout.INFO if actual is None else "it"
            yield Fault(CONTRACT, f"feature {name} is missing in {where}")
        elif _bare(stated) != actual:
            yield Fault(CONTRACT, f"feature {name} is {_bare(stated)}, {layout.INFO} says {actual}")
    if contract.fps != info.fps:
        yield Fault(CONTRACT, f"fps is {contract.fps:g}, {layout.INFO} says {info.fps:g}")
    if recorded and contract.stats_digest != stats_digest(recorded, contract.features):
        yield Fault(CONTRACT, f"stats_digest is not that of {layout.STATS}", mend=REPAIR)


def _bare(feature: dict[str, Any]) -> dict[str, Any]:
    """A feature as in a contract, without LeRobot's video info."""
    return {key: feature.get(key) for key in ("dtype", "shape", "names")}


def provenance_faults(root: Path, episodes: Sequence[Episode]) -> Iterator[Fault]:
    """Check that every episode comes from one recording, and no recording occurs twice."""
    try:
        recordings = Provenance.parse(layout.read_text(root, PROVENANCE)).episodes
    except DatasetError as error:
        yield Fault(PROVENANCE, str(error).removeprefix(PROVENANCE).lstrip(": "))
        return
    if len(recordings) != len(episodes):
        text = f"lists {len(recordings)} recordings, there are {len(episodes)} episodes"
        yield Fault(PROVENANCE, text)
        return
    first: dict[str, int] = {}
    for episode, recording in zip(episodes, recordings, strict=True):
        source = printable(recording.source)
        if recording.frames != episode.length:
            text = f"{source} has {recording.frames} frames, the episode {episode.length}"
            yield Fault(PROVENANCE, text, episode.index)
        if recording.key in first:
            text = (
                f"is the same recording as episode {first[recording.key]}: {source}"
                f" (uid {printable(recording.uid)})"
            )
            yield Fault(PROVENANCE, text, episode.index)
        first.setdefault(recording.key, episode.index)


def file_faults(root: Path, episodes: Sequence[Episode], tables: Sequence[str]) -> Iterator[Fault]:
    """Missing files of episodes, and files that no episode refers to."""
    owners: dict[str, list[int]] = {}
    for episode in episodes:
        for name in (episode.data, *(clip.file for clip in episode.videos.values())):
            owners.setdefault(name, []).append(episode.index)
    for name, indices in owners.items():
        try:
            exists = inside(root, name).is_file()
        except InvalidDocument as error:
            yield Fault(name, str(error), unreadable=True)
            continue
        if not exists:
            yield Fault(
                name, f"does not exist; episode {listed(indices)} should be in it", unreadable=True
            )
    known = {layout.INFO, layout.STATS, layout.TASKS, CONTRACT, PROVENANCE, *tables, *owners}
    for folder in _OWNED:
        for path in sorted((root / folder).rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.is_file() and name not in known:
                yield Fault(name, "no episode refers to it; remove it if nothing else needs it")
