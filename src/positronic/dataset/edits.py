"""What people said about recordings afterwards: the edit logs of public Positronic.

A recording is never changed. A file ``edits.jsonl`` beside it holds one JSON record a line, which
names the episode by its uid::

    {"op": "set_static", "v": 1, "ep": "<uid>", "data": {"task": "..."}}
    {"op": "drop", "v": 1, "ep": "<uid>"}
    {"op": "undrop", "v": 1, "ep": "<uid>"}

The log of a directory holds for all episodes below it. Inner directories' logs come first, outer
ones after them, an episode's own log last; of what contradicts itself, the last record counts. A
record that is not known stops the reading, since who wrote it meant something by it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, override

from positronic.dataset import statics
from positronic.dataset.dataset import Dataset
from positronic.dataset.episode import Episode, EpisodeView
from positronic.dataset.faults import broken
from positronic.errors import DatasetError

EDITS = "edits.jsonl"

Log = Mapping[str, list[dict[str, Any]]]


def read_log(path: Path, name: str) -> Log:
    """The records of a log by uid, in order; DatasetError naming the line that is not one."""
    records: dict[str, list[dict[str, Any]]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            try:
                record = _checked(statics.parse(line))
            except ValueError as error:
                raise DatasetError(
                    f"{name}, line {number}: {error}; read it with the version that wrote it, or "
                    "take the line out"
                ) from error
            records.setdefault(record["ep"], []).append(record)
    return records


def _checked(record: Any) -> dict[str, Any]:
    match record:
        case {"op": "set_static", "v": 1, "ep": str(), "data": dict(data)}:
            return {**record, "data": statics.checked(data, "data")}
        case {"op": "drop" | "undrop", "v": 1, "ep": str()}:
            return dict(record)
    raise ValueError(f"no edit that this version knows: {json.dumps(record, default=str)[:200]}")


def edited(dataset: Dataset, logs: Sequence[Log], own: Mapping[int, Log]) -> Dataset:
    """The dataset as its logs say: ``logs`` for all of it, inner first, ``own`` by position."""
    if not logs and not own:
        return dataset
    dataset.prefetch(range(len(dataset)))
    kept: list[tuple[int, dict[str, Any]]] = []
    for position, episode in enumerate(dataset):
        every = [*logs, own.get(position, {})]
        records = (record for log in every for record in log.get(episode.uid, ()))
        dropped, values = _outcome(records)
        if not dropped:
            kept.append((position, values))
    return EditedDataset(dataset, kept)


def _outcome(records: Iterable[dict[str, Any]]) -> tuple[bool, dict[str, Any]]:
    dropped, values = False, dict[str, Any]()
    for record in records:
        if record["op"] == "set_static":
            values |= record["data"]
        else:
            dropped = record["op"] == "drop"
    return dropped, values


class EditedDataset(Dataset):
    """Episodes that were not dropped, each with the static values it was given afterwards."""

    def __init__(self, source: Dataset, kept: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
        self.source = source
        self._kept = kept

    def __len__(self) -> int:
        return len(self._kept)

    @override
    def episode(self, index: int) -> Episode:
        position, values = self._kept[index]
        episode = self.source.episode(position)
        return EditedEpisode(episode, values) if values else episode

    @override
    def prefetch(self, positions: Iterable[int]) -> None:
        self.source.prefetch(self._kept[i][0] for i in positions)


class EditedEpisode(EpisodeView):
    """An episode with other static values; EpisodeError where one has the name of a signal."""

    def __init__(self, source: Episode, values: Mapping[str, Any]) -> None:
        super().__init__(source)
        self._values = values

    @cached_property
    @override
    def static(self) -> Mapping[str, Any]:
        clash = [name for name in self._values if name in self.source.signals]
        if clash:
            why = f"sets the static value {clash[0]!r}, which is a signal of it"
            raise broken(self.meta["path"], EDITS, why, "take the edit out")
        return {**self.source.static, **self._values}
