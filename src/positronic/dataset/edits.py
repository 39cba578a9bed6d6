"""Edit logs of public Positronic: later changes of static values, and dropped episodes.

A recording is never changed. A file ``edits.jsonl`` beside it holds one JSON record per line, which
refers to the episode by its uid::

    {"op": "set_static", "v": 1, "ep": "<uid>", "data": {"task": "..."}}
    {"op": "drop", "v": 1, "ep": "<uid>", "why": "..."}
    {"op": "undrop", "v": 1, "ep": "<uid>"}

The log of a directory applies to all episodes below it. Logs of inner directories are applied
first, then those of outer ones, an episode's own log last; the last record wins. An unknown record
is an error, because skipping it would lose an edit. What this package writes goes into an episode's
own log. ``why`` is this project's addition, which public Positronic passes over.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, override

from pydantic import Field

from foundation.documents import Document, Reader
from foundation.files import open_to_append, sync
from foundation.text import printable
from positronic.dataset import statics
from positronic.dataset.applied_edits import Dropped, Edits
from positronic.dataset.dataset import Dataset
from positronic.dataset.episode import Episode, EpisodeView
from positronic.dataset.faults import broken
from positronic.dataset.recorded import UNNAMED
from positronic.errors import DatasetError, EpisodeError

EDITS = "edits.jsonl"
READER = Reader(
    error=DatasetError,
    mend="read it with the version that wrote it, or remove the line",
    size=64 << 20,
    values=1_000_000,
    allow_nan=True,
)


class _SetStatic(Document):
    op: Literal["set_static"]
    v: Literal[1]
    ep: str
    data: dict[str, Any]


class _DropOrUndrop(Document):
    op: Literal["drop", "undrop"]
    v: Literal[1]
    ep: str
    why: Any = None  # others may put something else than text there


type _Edit = Annotated[_SetStatic | _DropOrUndrop, Field(discriminator="op")]

Log = Mapping[str, list[_SetStatic | _DropOrUndrop]]


def read_log(path: Path, name: str) -> Log:
    """The records of a log by uid, in order; DatasetError naming an invalid line."""
    try:
        content = READER.read(path)
    except OSError as error:
        raise DatasetError(
            f"{name} cannot be read: {error.strerror}; restore it, or remove it"
        ) from error
    return parse_log(content, name)


def parse_log(content: bytes, name: str) -> Log:
    """The records of a log by uid, as :func:`read_log`, from its content."""
    records: dict[str, list[_SetStatic | _DropOrUndrop]] = {}
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.strip():
            record = _record(line, f"{name}, line {number}")
            records.setdefault(record.ep, []).append(record)
    return records


def own_log(episode: Path | str, path: Path) -> Log | EpisodeError | None:
    """The log inside an episode, or the error of reading it; None without a log."""
    if not os.path.lexists(path):
        return None
    try:
        return read_log(path, EDITS)
    except DatasetError as error:
        return broken(episode, EDITS, str(error).removeprefix(f"{EDITS}, "))


def append(episode: Path, record: Mapping[str, Any]) -> None:
    """Append a record to the log inside an episode; it is on disk on return.

    Raises:
        DatasetError: the log has an invalid line, after which nothing would be read; or it cannot
            be written.
    """
    path = episode / EDITS
    line = json.dumps(record, default=statics.encode) + "\n"
    try:
        with open_to_append(path) as log:
            # One writer at a time, so that the log that was checked is the one that is continued.
            fcntl.flock(log, fcntl.LOCK_EX)
            before = READER.read(path)
            parse_log(before, str(path))
            if before and not before.endswith(b"\n"):
                line = f"\n{line}"
            log.write(line.encode())
            log.flush()
            os.fsync(log.fileno())
        sync(episode)
    except OSError as error:
        raise DatasetError(
            f"{path} cannot be written: {error.strerror}; the edit was not made"
        ) from error


def _record(line: bytes, source: str) -> _SetStatic | _DropOrUndrop:
    record: _SetStatic | _DropOrUndrop = READER.parse_json(line, _Edit, source)  # type: ignore[arg-type]
    if isinstance(record, _DropOrUndrop):
        return record
    try:
        data = statics.checked(statics.decoded(record.data), "data")
    except ValueError as error:
        raise READER.refusal(f"{source}: {error}") from error
    return record.model_copy(update={"data": data})


def edited(dataset: Dataset, logs: Sequence[Log], own: Mapping[int, Log | EpisodeError]) -> Dataset:
    """The dataset with its logs applied: ``logs`` to all of it, inner first, ``own`` by position.

    An episode whose edits cannot be determined is kept, and raises EpisodeError when opened.
    """
    if not logs and not own:
        return dataset
    dataset.prefetch(range(len(dataset)))
    unnamed: dict[str, str] = {}
    kept: list[tuple[int, Mapping[str, Any] | EpisodeError]] = []
    left_out: list[Dropped] = []
    digest = hashlib.sha256()
    for position in range(len(dataset)):
        log = own.get(position, {})
        try:
            if isinstance(log, EpisodeError):
                raise log
            episode = dataset[position]
            uid = episode.uid
            if uid.startswith(UNNAMED) and any(uid in each for each in (*logs, log)):
                source = str(episode.meta.get("path"))
                if unnamed.setdefault(uid, source) != source:
                    raise EpisodeError(
                        f"an edit log refers to the episode {uid}, a uid made from its file sizes "
                        f"because meta.json has none; {printable(unnamed[uid])} has the same. Give "
                        "each a meta.json with its own uid, and refer to that"
                    )
        except EpisodeError as error:
            kept.append((position, error))
            continue
        records = [record for each in (*logs, log) for record in each.get(uid, ())]
        for record in records:
            content = json.dumps(record.model_dump(), default=statics.encode, sort_keys=True)
            digest.update(content.encode() + b"\n")
        drop, values = _outcome(records)
        if drop is None:
            kept.append((position, values))
        else:
            why = printable(drop.why, 200) if isinstance(drop.why, str) else None
            left_out.append(Dropped(source=str(episode.meta.get("path")), uid=uid, why=why))
    return EditedDataset(dataset, kept, Edits(digest=digest.hexdigest(), dropped=tuple(left_out)))


def _outcome(
    records: Iterable[_SetStatic | _DropOrUndrop],
) -> tuple[_DropOrUndrop | None, dict[str, Any]]:
    """The record that drops the episode, if it is dropped, and the static values set."""
    drop, values = None, dict[str, Any]()
    for record in records:
        if isinstance(record, _SetStatic):
            values |= record.data
        else:
            drop = record if record.op == "drop" else None
    return drop, values


class EditedDataset(Dataset):
    """Episodes that were not dropped, with the static values set by edits.

    ``kept`` has each one's position in ``source``, and these values or the error raised on opening.
    """

    def __init__(
        self,
        source: Dataset,
        kept: Sequence[tuple[int, Mapping[str, Any] | EpisodeError]],
        edits: Edits,
    ) -> None:
        self.source = source
        self._kept = kept
        self._edits = edits

    def __len__(self) -> int:
        return len(self._kept)

    @property
    @override
    def edits(self) -> Edits:
        return self._edits

    @override
    def episode(self, index: int) -> Episode:
        position, values = self._kept[index]
        if isinstance(values, EpisodeError):
            raise EpisodeError(*values.args)
        episode = self.source.episode(position)
        return EditedEpisode(episode, values) if values else episode

    @override
    def prefetch(self, positions: Iterable[int]) -> None:
        self.source.prefetch(self._kept[i][0] for i in positions)


class EditedEpisode(EpisodeView):
    """An episode with edited static values; EpisodeError if one has the name of a signal."""

    def __init__(self, source: Episode, values: Mapping[str, Any]) -> None:
        super().__init__(source)
        self._values = values

    @cached_property
    @override
    def static(self) -> Mapping[str, Any]:
        clash = [name for name in self._values if name in self.source.signals]
        if clash:
            why = f"sets the static value {clash[0]!r}, which is a signal of the episode"
            raise broken(self.meta["path"], EDITS, why, "remove the edit")
        return {**self.source.static, **self._values}
