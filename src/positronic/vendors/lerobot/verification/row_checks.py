"""Row checks: data files of a LeRobot dataset against its episodes table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from positronic.errors import DatasetError
from positronic.vendors.lerobot.dataset.fault import Fault, first_of, listed
from positronic.vendors.lerobot.dataset.layout import (
    COUNTERS,
    TEXT,
    Episode,
    array_of,
    read_table,
)
from positronic.vendors.lerobot.verification import statistics_checks

TOLERANCE_S = 1e-4  # LeRobot's tolerance of a row's time
MANY = 100_000


@dataclass(frozen=True)
class RowsCheck:
    """The rows of one parquet file.

    Attributes:
        root: directory of the dataset.
        file: the data file, relative to it.
        first: expected ``index`` of its first row, as LeRobot finds rows by position.
        features: all features of the dataset.
        fps: rows per second.
        tasks: tasks by ``task_index``.
        episodes: episodes whose rows should be in the file.
        ours: whether the statistics must be exact.
    """

    root: Path
    file: str
    first: int
    features: dict[str, dict[str, Any]]
    fps: float
    tasks: dict[int, str]
    episodes: Sequence[Episode]
    ours: bool

    def run(self) -> list[Fault]:
        """Read the file and return faults."""
        pictures = [name for name, f in self.features.items() if f["dtype"] == "image"]
        try:
            table = read_table(self.root, self.file, lambda t: t, pictures)
        except DatasetError as error:
            text = str(error).removeprefix(f"{self.file}: ")
            return [Fault(self.file, text, unreadable=True)]
        columns: dict[str, NDArray[Any]] = {}
        faults = []
        for name, feature in self.features.items():
            if feature["dtype"] in ("video", "image", *TEXT):
                continue
            try:
                columns[name] = array_of(table, name, feature)
            except ValueError as error:
                faults.append(Fault(self.file, f"column {name}: {error}"))
        if not COUNTERS.keys() <= columns.keys():
            return faults
        faults += self._unknown_episodes(columns)
        for episode in self.episodes:
            rows = np.flatnonzero(columns["episode_index"] == episode.index)
            found = {name: column[rows] for name, column in columns.items()}
            texts = self._miscounted(episode, found) or [
                *self._counters(episode, found),
                *self._values(episode, found),
            ]
            faults += [Fault(self.file, text, episode.index) for text in texts]
        return faults or self._out_of_place(columns["index"])

    def _unknown_episodes(self, columns: dict[str, NDArray[Any]]) -> list[Fault]:
        known = [episode.index for episode in self.episodes]
        others = set(columns["episode_index"].tolist()) - set(known)
        text = "has rows in this file, which the episodes table does not list"
        return [Fault(self.file, text, index) for index in sorted(others)]

    def _miscounted(self, episode: Episode, rows: dict[str, NDArray[Any]]) -> list[str]:
        count = len(rows["index"])
        if count == episode.length:
            return []
        # Bounded, as listing an absurd length would exhaust memory.
        expected = range(min(episode.length, count + MANY))
        missing = set(expected) - set(rows["frame_index"].tolist())
        which = f"; missing: frame {listed(missing)}" if missing else ""
        return [f"has {count} rows, expected {episode.length}{which}"]

    def _counters(self, episode: Episode, rows: dict[str, NDArray[Any]]) -> Iterator[str]:
        frames = np.arange(episode.length)
        expected = {"frame_index": frames, "index": episode.start + frames}
        for name, right in expected.items():
            if (wrong := rows[name] != right).any():
                at, more = first_of(wrong)
                yield f"{name} of frame {at} is {rows[name][at]}, expected {right[at]}{more}"
        times = frames / self.fps
        # The precision of float32 after half an hour.
        tolerance = np.maximum(TOLERANCE_S, times * 2.0**-24)
        if (wrong := ~(np.abs(rows["timestamp"] - times) <= tolerance)).any():
            at, more = first_of(wrong)
            found = rows["timestamp"][at]
            yield f"timestamp of frame {at} is {found:.6g} s, expected {times[at]:.6g} s{more}"
        own = {index for index, task in self.tasks.items() if task in episode.tasks}
        if (wrong := ~np.isin(rows["task_index"], list(own))).any():
            at, more = first_of(wrong)
            index = int(rows["task_index"][at])
            task = repr(self.tasks[index]) if index in self.tasks else "no task"
            said = ", ".join(map(repr, episode.tasks))
            yield (
                f"task_index of frame {at} is {index}, {task}, where the episodes table"
                f" says {said}{more}"
            )

    def _values(self, episode: Episode, rows: dict[str, NDArray[Any]]) -> Iterator[str]:
        for name, values in rows.items():
            if np.issubdtype(values.dtype, np.floating):
                wrong = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
                if wrong.any():
                    at, more = first_of(wrong)
                    yield f"{name} of frame {at} has NaN or infinity{more}"
                    continue
            if name not in episode.stats:
                if name not in COUNTERS:
                    yield f"no statistics of {name} in {episode.table}"
                continue
            fault = statistics_checks.of_vectors(episode.stats[name], values, ours=self.ours)
            if fault:
                yield f"statistics of {name} in {episode.table}: {fault}"

    def _out_of_place(self, index: NDArray[Any]) -> list[Fault]:
        """Rows that are valid but not at the position at which LeRobot looks for them."""
        expected = self.first + np.arange(len(index))
        wrong = index != expected
        if not wrong.any():
            return []
        at, more = first_of(wrong)
        text = f"row {at} has index {index[at]}, expected {expected[at]} at this position{more}"
        return [Fault(self.file, text)]
