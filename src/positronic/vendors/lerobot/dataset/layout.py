"""Read ``meta/`` of a LeRobot v3.0 dataset without importing LeRobot.

LeRobot's own metadata class takes seconds to import and raises arbitrary pandas errors on a damaged
file. Verification needs each error with the name of its file.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from foundation.arrow import as_numpy
from foundation.documents import InvalidDocument, Reader, inside
from foundation.tables import open_table
from foundation.text import printable
from getiaction.dataset_info import (
    DatasetInfo,
    Statistics,
    as_statistics,
    parse_info,
    parse_statistics,
)
from positronic.errors import DatasetError
from positronic.vendors.lerobot.dataset.fault import first_of

READER = Reader(error=DatasetError, size=1 << 28, allow_nan=True)
INFO = "meta/info.json"
STATS = "meta/stats.json"
TASKS = "meta/tasks.parquet"
EPISODES = "meta/episodes"
# Rows that a dataset may have, and seconds that a video may last: a year.
LARGEST = 2**40
LONGEST_S = 366 * 86400.0
# Columns that LeRobot adds to every dataset.
COUNTERS = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
# Neither numbers nor images: no statistics are computed, and their shape says little.
TEXT = ("string", "language")


@dataclass(frozen=True)
class Info:
    """``meta/info.json``; ``features`` are LeRobot's feature dicts, ``said`` the parsed file."""

    said: DatasetInfo
    features: dict[str, dict[str, Any]]

    @property
    def fps(self) -> float:
        """Rows per second."""
        return self.said.fps

    @property
    def own(self) -> dict[str, dict[str, Any]]:
        """Features without LeRobot's own columns."""
        return {name: f for name, f in self.features.items() if name not in COUNTERS}

    def keys(self, *dtypes: str) -> list[str]:
        """Features of these dtypes, such as ``"video"``."""
        return [name for name, feature in self.features.items() if feature["dtype"] in dtypes]


@dataclass(frozen=True)
class Clip:
    """An episode's segment of a video file; ``start`` and ``stop`` in seconds."""

    file: str
    start: float
    stop: float


@dataclass(frozen=True)
class Episode:
    """One row of the episodes table.

    Attributes:
        index: its ``episode_index``.
        length: number of rows.
        start: ``index`` of its first row in the dataset; ``stop`` is one past its last.
        tasks: what the robot was asked to do.
        table: the file of the episodes table that holds it.
        data: the file that holds its rows.
        videos: its video segments, by feature.
        stats: its statistics, by feature.
    """

    index: int
    length: int
    start: int
    stop: int
    tasks: tuple[str, ...]
    table: str
    data: str
    videos: dict[str, Clip] = field(default_factory=dict)
    stats: dict[str, Statistics] = field(default_factory=dict)


def size_of(feature: Mapping[str, Any]) -> tuple[int, int]:
    """Return height and width of a camera, whose shape may be HWC or CHW in LeRobot."""
    shape, names = tuple(feature["shape"]), feature.get("names")
    names = list(names) if isinstance(names, list | tuple) else []
    if "height" in names and "width" in names and len(names) == len(shape):
        return shape[names.index("height")], shape[names.index("width")]
    return shape[0], shape[1]


def is_depth(feature: Mapping[str, Any]) -> bool:
    """Return whether the camera measures depth, which LeRobot stores unlike RGB images."""
    info = feature.get("info") or {}
    return bool(info.get("is_depth_map") or info.get("video.is_depth_map"))


def read_text(root: Path, name: str) -> bytes:
    """Return the content of a file in the dataset; DatasetError names the file."""
    try:
        return READER.read(inside(root, name))
    except FileNotFoundError as error:
        raise DatasetError(f"{name}: does not exist") from error
    except (OSError, InvalidDocument) as error:
        raise DatasetError(f"{name}: cannot be read: {_without(root / name, error)}") from error


def read_info(root: Path) -> Info:
    """Return ``meta/info.json``; DatasetError if the dataset is not of LeRobot's format v3."""
    said = parse_info(read_text(root, INFO), INFO, READER)
    features = {
        name: {
            "dtype": feature.dtype,
            "shape": tuple(feature.shape),
            "names": feature.names,
            "info": feature.info or feature.video_info,
        }
        for name, feature in said.features.items()
    }
    for name, feature in features.items():
        if feature["dtype"] in ("video", "image") and len(feature["shape"]) != 3:
            raise DatasetError(f"{INFO}: camera {printable(name)} has shape {feature['shape']}")
    return Info(said, features)


def read_tasks(root: Path) -> list[tuple[int, str]]:
    """Return ``task_index`` and task, in the order of the file, which LeRobot uses."""

    def pairs(table: Any) -> list[tuple[int, str]]:
        others = [name for name in table.column_names if name != "task_index"]
        # pandas keeps the tasks as an index without a name in datasets of older versions.
        name = "task" if "task" in others else others[0]
        indices = [_number(index) for index in table["task_index"].to_pylist()]
        tasks = [_text(task) for task in table[name].to_pylist()]
        return list(zip(indices, tasks, strict=True))

    return read_table(root, TASKS, pairs)


def read_stats(root: Path) -> dict[str, Statistics]:
    """Return ``meta/stats.json``, as float64 arrays."""
    return parse_statistics(read_text(root, STATS), STATS, READER)


def episode_tables(root: Path) -> list[str]:
    """Return the files of the episodes table, in LeRobot's order."""
    return [
        path.relative_to(root).as_posix() for path in sorted(root.glob(f"{EPISODES}/*/*.parquet"))
    ]


def read_episodes(root: Path, name: str, info: Info) -> list[Episode]:
    """Return the episodes in one file of the episodes table."""

    def rows(table: Any) -> list[Episode]:
        plain = [column for column in table.column_names if not column.startswith("stats/")]
        stats = [column for column in table.column_names if column.startswith("stats/")]
        found = []
        for row, recorded in zip(
            table.select(plain).to_pylist(), table.select(stats).to_pylist(), strict=True
        ):
            nested: dict[str, dict[str, Any]] = {}
            for column, value in recorded.items():
                feature, statistic = column.removeprefix("stats/").rsplit("/", 1)
                if value is not None:
                    nested.setdefault(feature, {})[statistic] = value
            found.append(_episode(row, as_statistics(nested), name, info))
        return found

    return read_table(root, name, rows)


def read_table[T](
    root: Path,
    name: str,
    read: Callable[[Any], T],
    leave_out: Collection[str] = (),
    only: Collection[str] | None = None,
) -> T:
    """Return ``read`` of a parquet file's columns: ``only`` these, or all but ``leave_out``.

    Raises:
        DatasetError: the file is damaged, or not as ``read`` expects; the message names it.
    """
    try:
        with open_table(inside(root, name)) as table:
            names = table.names
            wanted = [c for c in names if c not in leave_out and (only is None or c in only)]
            read_columns = table.read(wanted)
    except FileNotFoundError as error:
        raise DatasetError(f"{name}: does not exist") from error
    except (OSError, InvalidDocument) as error:
        raise DatasetError(f"{name}: cannot be read: {_without(root / name, error)}") from error
    try:
        return read(read_columns)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DatasetError(f"{name}: is not LeRobot's: {one_line(error)}") from error


def _without(path: Path, error: Exception) -> str:
    """Return the message of an error, without the path at its beginning."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error).removeprefix(str(path)).lstrip(": ")


def array_of(table: Any, name: str, feature: Mapping[str, Any]) -> NDArray[Any]:
    """Return a column of a parquet table as an array ``(T,)``, or ``(T, *shape)``.

    Raises:
        ValueError: it is missing, or its values do not match the feature.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if name not in table.column_names:
        raise ValueError("is missing")
    column = table[name].combine_chunks()
    array = column.storage if isinstance(column, pa.ExtensionArray) else column
    shape = feature["shape"] if tuple(feature["shape"]) != (1,) else ()
    for size in shape:
        if array.null_count:
            raise ValueError(f"{array.null_count} values are empty")
        if not hasattr(array, "flatten") or not hasattr(array.type, "value_type"):
            raise ValueError(f"its values have fewer dimensions than {tuple(shape)}")
        lengths = as_numpy(pc.list_value_length(array))
        if (wrong := lengths != size).any():
            at, more = first_of(wrong)
            raise ValueError(f"row {at} has {lengths[at]} values, expected {size}{more}")
        array = array.flatten()
    kind = pa.type_for_alias(feature["dtype"])
    if array.type != kind:
        raise ValueError(f"is of type {array.type}, expected {kind}")
    if array.null_count:
        raise ValueError(f"{array.null_count} values are empty")
    return as_numpy(array).reshape(len(table), *shape)


def _episode(
    row: Mapping[str, Any], stats: dict[str, Statistics], name: str, info: Info
) -> Episode:
    def place(prefix: str) -> tuple[int, int]:
        return _number(row[f"{prefix}/chunk_index"]), _number(row[f"{prefix}/file_index"])

    videos = {
        key: Clip(
            info.said.video_file(key, *place(f"videos/{key}")),
            _seconds(row[f"videos/{key}/from_timestamp"]),
            _seconds(row[f"videos/{key}/to_timestamp"]),
        )
        for key in info.keys("video")
    }
    return Episode(
        index=_number(row["episode_index"]),
        length=_number(row["length"]),
        start=_number(row["dataset_from_index"]),
        stop=_number(row["dataset_to_index"]),
        tasks=tuple(_text(task) for task in row["tasks"]),
        table=name,
        data=info.said.data_file(*place("data")),
        videos=videos,
        stats=stats,
    )


def _number(value: Any) -> int:
    """Return a count or an index of an episode, row or file; ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < LARGEST:
        raise ValueError(f"expected a whole number from 0 to {LARGEST}, found {value!r}")
    return value


def _seconds(value: Any) -> float:
    """Return a time in a video; ValueError for anything else."""
    if not isinstance(value, int | float) or not 0 <= value < LONGEST_S:
        raise ValueError(f"expected seconds from 0 to {LONGEST_S:g}, found {value!r}")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected the text of a task, found {printable(repr(value))}")
    return value


def one_line(error: Exception) -> str:
    """Return the first line of a library's error message, printable."""
    text = str(error).strip().splitlines()
    return printable(text[0]) if text else type(error).__name__
