"""Checks of an untrusted dataset's metadata and tables before LeRobot opens it.

LeRobot builds paths from ``info.json`` and the episodes table, and decodes every table without a
memory limit. Missing files are not checked here; LeRobot reports them.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.documents import Reader, inside
from foundation.tables import Table, open_table
from foundation.text import printable
from getiaction.dataset_info import DatasetInfo, parse_info, parse_statistics
from getiaction.errors import GetiactionError
from getiaction.roots import INFO

READER = Reader(error=GetiactionError, size=1 << 28, allow_nan=True)
STATS, TASKS, EPISODES = "meta/stats.json", "meta/tasks.parquet", "meta/episodes/*/*.parquet"
DATA = "data/*/*.parquet"
FILES = 2**31  # upper bound of chunk and file indices
LONGEST_S = 366 * 86400.0  # maximum timestamp in a video


def require_sound_metadata(root: Path) -> None:
    """Check that a dataset's ``meta/`` is safe to open with LeRobot.

    Raises:
        GetiactionError: the message has the file, its content and what was expected.
    """
    if not (root / INFO).exists():
        return
    info = parse_info(READER.read(root / INFO), str(root / INFO), READER)
    if (root / STATS).exists():
        _require_statistics(root / STATS, info)
    if (root / TASKS).exists():
        with open_table(root / TASKS) as table:
            _require_tasks(root / TASKS, table)
    for path in sorted(root.glob(EPISODES)):
        with open_table(path) as table:
            table.check()  # LeRobot reads all columns
            _require_episodes(path, table, root, info)


def require_sound_rows(root: Path) -> None:
    """Check that the data tables do not decode to far more memory than their file size.

    Raises:
        GetiactionError: the message has the file.
    """
    for path in sorted(root.glob(DATA)):
        with open_table(path) as table:
            table.check()


def _require_statistics(path: Path, info: DatasetInfo) -> None:
    for name, stats in parse_statistics(READER.read(path), str(path), READER).items():
        feature = info.features.get(name)
        if feature is None or feature.dtype in ("video", "image") or len(feature.shape) != 1:
            continue
        for statistic, values in stats.items():
            if statistic != "count" and values.size not in (1, feature.shape[0]):
                raise GetiactionError(
                    f"{path}: {printable(statistic)} of {printable(name)} has {values.size} "
                    f"values, expected {feature.shape[0]}; repair it by `positronic-to-lerobot "
                    "verify --repair=statistics`"
                )


def _require_tasks(path: Path, table: Table) -> None:
    columns = table.read()
    others = [name for name in table.names if name != "task_index"]
    if "task_index" not in table.names or not others:
        raise GetiactionError(f"{path} has columns {table.names}, expected task_index and task")
    _indices(path, columns, "task_index", FILES)
    for name in others:
        for task in columns[name].to_pylist():
            if not isinstance(task, str):
                raise GetiactionError(f"{path} has the task {printable(repr(task))}, expected text")


def _require_episodes(path: Path, table: Table, root: Path, info: DatasetInfo) -> None:
    cameras = [name for name, feature in info.features.items() if feature.dtype == "video"]
    columns = table.read([name for name in table.names if not name.startswith("stats/")])
    for name in ("episode_index", "length", "dataset_from_index", "dataset_to_index"):
        _indices(path, columns, name, info.total_frames + 1)
    chunks, files = (_file_index(path, columns, "data", part) for part in ("chunk", "file"))
    names = {info.data_file(*place) for place in _distinct(chunks, files)}
    for key in cameras:
        chunks, files = (
            _file_index(path, columns, f"videos/{key}", part) for part in ("chunk", "file")
        )
        names |= {info.video_file(key, *place) for place in _distinct(chunks, files)}
        for end in ("from_timestamp", "to_timestamp"):
            _seconds(path, columns, f"videos/{key}/{end}")
    for name in names:
        inside(root, name)


def _file_index(path: Path, columns: Any, kind: str, part: str) -> NDArray[np.int64]:
    return _indices(path, columns, f"{kind}/{part}_index", FILES)


def _distinct(chunks: NDArray[np.int64], files: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    for chunk, file in np.unique(np.stack([chunks, files], axis=1), axis=0):
        yield int(chunk), int(file)


def _indices(path: Path, columns: Any, name: str, limit: int) -> NDArray[np.int64]:
    """Read an integer column with values from 0 to below ``limit``."""
    import pyarrow as pa

    column = _column(path, columns, name)
    if not pa.types.is_integer(column.type) or pa.types.is_uint64(column.type):
        raise GetiactionError(
            f"{path}: {printable(name)} has type {printable(column.type)}, expected int64"
        )
    values = np.asarray(column.to_numpy()).astype(np.int64)
    wrong = (values < 0) | (values >= limit)
    if wrong.any():
        raise GetiactionError(
            f"{path}: {printable(name)} is {values[wrong][0]} in row {int(wrong.argmax())}, "
            f"expected 0 to {limit - 1}"
        )
    return values


def _seconds(path: Path, columns: Any, name: str) -> None:
    column = _column(path, columns, name)
    for row, value in enumerate(column.to_pylist()):
        good = isinstance(value, int | float) and math.isfinite(value) and 0 <= value < LONGEST_S
        if not good:
            raise GetiactionError(
                f"{path}: {printable(name)} is {printable(repr(value))} in row {row}, expected "
                "seconds"
            )


def _column(path: Path, columns: Any, name: str) -> Any:
    if columns.column_names.count(name) != 1:
        raise GetiactionError(f"{path} has no column {printable(name)}, or two; convert it again")
    column = columns[name]
    if column.null_count:
        raise GetiactionError(f"{path}: {printable(name)} is empty in {column.null_count} rows")
    return column
