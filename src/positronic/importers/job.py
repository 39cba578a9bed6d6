"""Import of a source: each episode is recorded whole or not at all, and never twice."""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from foundation import storage
from foundation.console import say_made
from foundation.errors import StorageError, UsageError
from foundation.progress import track
from foundation.text import did_you_mean, printable
from positronic.errors import DatasetError, EpisodeError
from positronic.importers.source import Recording, Source, Stream

if TYPE_CHECKING:
    from positronic.dataset import EpisodeWriter


@dataclass(frozen=True)
class Wanted:
    """What the user asks of an import.

    Attributes:
        output_dir: the dataset to write, local or ``s3://``.
        task: words for every episode.
        signals: signals by the names that streams have by default, to rename them; None leaves a
            stream out.
        resume: add to a dataset; what it has of this source is skipped.
    """

    output_dir: str
    task: str | None
    signals: Mapping[str, str | None]
    resume: bool = False


def inspect(source: Source, wanted: Wanted) -> None:
    """Print the streams of a source and what each becomes; nothing is written."""
    names = _renamed(source.streams(), wanted.signals)
    print(f"{source.format}: {len(source.recordings())} episodes at {source.fps:g} per second")
    for stream in source.streams():
        shape = "x".join(map(str, stream.shape)) or "one number"
        signal = names.get(stream.name) or "left out"
        print(f"{stream.place:40} {stream.dtype} {shape}, {stream.count} samples -> {signal}")
    for assumption in source.assumptions:
        print(f"taken as given: {assumption}")


def import_source(source: Source, wanted: Wanted) -> int:
    """Record the episodes of a source as raw episodes.

    An episode that cannot be read is named and left out. After a kill the same call with
    ``wanted.resume`` goes on; episodes are the same as without the kill.

    Returns:
        The exit status: 1 if an episode was left out.

    Raises:
        DatasetError: no episode could be read.
        StorageError: there is something in the output already, or it cannot be written to.
        UsageError: a stream to rename does not exist.
    """
    names = _renamed(source.streams(), wanted.signals)
    recordings = source.recordings()
    with storage.output_directory(wanted.output_dir, append=wanted.resume) as root:
        if not wanted.resume and root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise StorageError(
                f"{root} exists and is not empty; choose another --output_dir, or go on with it by"
                " --resume=True"
            )
        present = _uids(root) if wanted.resume else set()
        fresh = [r for r in recordings if uid_of(source, r) not in present]
        for assumption in source.assumptions:
            print(f"taken as given: {assumption}", file=sys.stderr)
        skipped = _record(source, fresh, names, wanted, root)
    for line in skipped:
        print(f"skipped: {line}", file=sys.stderr)
    if fresh and len(skipped) == len(fresh):
        raise DatasetError(f"none of the {len(fresh)} episodes could be read: {skipped[0]}")
    there = len(recordings) - len(fresh)
    kept = f", {there} were there already" if there else ""
    count = len(fresh) - len(skipped)
    print(f"imported {count} of {len(recordings)} episodes at {source.fps:g} per second{kept}")
    print(f"signals: {printable(', '.join(name for name in names.values() if name), 2000)}")
    say_made("recordings", storage.join(wanted.output_dir))
    return 1 if skipped else 0


def uid_of(source: Source, recording: Recording) -> str:
    """The uid of the raw episode that a recording becomes, the same at each import."""
    what = f"{source.format}\n{recording.id}\n{recording.created_ts_ns}"
    return hashlib.sha256(what.encode("utf-8", "backslashreplace")).hexdigest()[:32]


def _record(
    source: Source,
    recordings: Sequence[Recording],
    names: Mapping[str, str | None],
    wanted: Wanted,
    root: Path,
) -> list[str]:
    """Record episodes; return why some could not be."""
    from positronic.dataset import DatasetWriter

    skipped: list[str] = []
    writer: DatasetWriter | None = None
    for recording in track(recordings, total=len(recordings), desc="importing", unit="ep"):
        try:
            # Made late, so that a source without a readable episode leaves no empty dataset.
            writer = writer or DatasetWriter(root)
            created = recording.created_ts_ns
            uid = uid_of(source, recording)
            with writer.new_episode(uid=uid, created_ts_ns=created) as episode:
                _write(episode, source, recording, names, wanted.task)
        except EpisodeError as error:
            skipped.append(str(error))
    if writer is not None and not any(root.iterdir()):
        root.rmdir()
    return skipped


def _write(
    episode: "EpisodeWriter",
    source: Source,
    recording: Recording,
    names: Mapping[str, str | None],
    task: str | None,
) -> None:
    statics = {
        **recording.statics,
        **({} if task is None else {"task": task}),
        "control_fps": source.fps,
        "import.format": source.format,
        "import.recording": recording.id,
    }
    if source.assumptions:
        statics["import.assumptions"] = [str(each) for each in source.assumptions]
    try:
        for key, value in statics.items():
            episode.set_static(key, value)
        empty = True
        for sample in source.samples(recording):
            signal = names.get(sample.stream, sample.stream)
            if signal is not None:
                episode.append(signal, sample.value, sample.ts_ns)
                empty = False
    except ValueError as error:
        why = printable(error, 400)
        raise EpisodeError(f"{printable(recording.id, 200)} cannot be recorded: {why}") from error
    if empty:
        raise EpisodeError(f"{printable(recording.id, 200)} has no samples")


def _renamed(streams: Sequence[Stream], wanted: Mapping[str, str | None]) -> dict[str, str | None]:
    """The signal of each stream; UsageError for a name that is none, or is given twice."""
    known = [stream.name for stream in streams]
    for name in wanted:
        if name not in known:
            raise UsageError(
                f"--signals names {printable(name, 80)!r}, which is no stream of the source"
                f"{did_you_mean(name, known)}; it has {printable(', '.join(known), 1000)}"
            )
    names = {name: wanted.get(name, name) for name in known}
    given = [name for name in names.values() if name is not None]
    twice = [name for name in given if given.count(name) > 1]
    if twice:
        raise UsageError(f"--signals makes two signals of the name {printable(twice[0], 80)!r}")
    return names


def _uids(root: Path) -> set[str]:
    """Uids of the finished episodes of a dataset; none if there is none yet."""
    from positronic.dataset import LocalDataset

    if not root.is_dir() or not any(root.iterdir()):
        return set()
    try:
        return {episode.uid for episode in LocalDataset(root)}
    except DatasetError:  # no finished episode yet, after an interrupted run
        return set()
