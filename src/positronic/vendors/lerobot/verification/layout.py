"""What ``meta/`` of a LeRobot v3.0 dataset says, read without LeRobot and so in no time.

LeRobot's own metadata class takes seconds to import and raises whatever pandas does on a damaged
file. What looks at a dataset to judge it needs each file's name with what is wrong in it.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from positronic.errors import DatasetError

INFO = "meta/info.json"
STATS = "meta/stats.json"
TASKS = "meta/tasks.parquet"
EPISODES = "meta/episodes"
# LeRobot's templates, for datasets that do not name others.
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
# Columns that LeRobot adds to every dataset.
COUNTERS = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
# Neither numbers nor images: nothing is computed of these, and their shape says little.
TEXT = ("string", "language")

Statistics = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Info:
    """``meta/info.json``."""

    version: str
    fps: int
    features: dict[str, dict[str, Any]]
    total_episodes: int
    total_frames: int
    total_tasks: int
    robot_type: str | None = None
    splits: dict[str, str] = field(default_factory=dict)
    data_path: str = DATA_PATH
    video_path: str = VIDEO_PATH

    @property
    def own(self) -> dict[str, dict[str, Any]]:
        """Features without LeRobot's own columns."""
        return {name: f for name, f in self.features.items() if name not in COUNTERS}

    def keys(self, *dtypes: str) -> list[str]:
        """Features of these dtypes, such as ``"video"``."""
        return [name for name, feature in self.features.items() if feature["dtype"] in dtypes]


@dataclass(frozen=True)
class Clip:
    """An episode's place in a video file; ``start`` and ``stop`` in seconds."""

    file: str
    start: float
    stop: float


@dataclass(frozen=True)
class Episode:
    """One row of the episodes table.

    Attributes:
        index: its ``episode_index``.
        length: number of rows.
        start: ``index`` of its first row in the dataset; ``stop`` is behind its last.
        tasks: what the robot was asked to do.
        table: the file of the episodes table that it stands in.
        data: the file that holds its rows.
        videos: its place in the videos, by feature.
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
    """Height and width of a camera, whose shape LeRobot lets be HWC or CHW."""
    shape, names = tuple(feature["shape"]), list(feature.get("names") or ())
    if "height" in names and "width" in names and len(names) == len(shape):
        return shape[names.index("height")], shape[names.index("width")]
    return shape[0], shape[1]


def is_depth(feature: Mapping[str, Any]) -> bool:
    """Whether the camera measures distances, which LeRobot stores as no RGB picture is."""
    info = feature.get("info") or {}
    return bool(info.get("is_depth_map") or info.get("video.is_depth_map"))


def read_json(root: Path, name: str) -> Any:
    """A JSON document of the dataset; DatasetError, naming the file, when it is none."""
    try:
        return json.loads((root / name).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DatasetError(f"{name}: does not exist") from error
    except (OSError, ValueError) as error:
        raise DatasetError(f"{name}: cannot be read: {error}") from error


def read_info(root: Path) -> Info:
    """``meta/info.json``; DatasetError when the dataset is not of LeRobot's format v3."""
    document = read_json(root, INFO)
    try:
        version = str(document["codebase_version"])
        if not version.startswith("v3."):
            raise DatasetError(
                f"{INFO}: the dataset is of LeRobot's format {version}, expected v3.0;"
                " LeRobot has a script that converts older ones"
            )
        features = {
            name: dict(feature, dtype=str(feature["dtype"]), shape=tuple(feature["shape"]))
            for name, feature in document["features"].items()
        }
        if document["fps"] <= 0:
            raise DatasetError(f"{INFO}: fps is {document['fps']}, expected more than 0")
        return Info(
            version=version,
            fps=document["fps"],
            features=features,
            total_episodes=int(document.get("total_episodes", 0)),
            total_frames=int(document.get("total_frames", 0)),
            total_tasks=int(document.get("total_tasks", 0)),
            robot_type=document.get("robot_type"),
            splits=document.get("splits") or {},
            data_path=document.get("data_path") or DATA_PATH,
            video_path=document.get("video_path") or VIDEO_PATH,
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DatasetError(f"{INFO}: is not LeRobot's: {error!r}") from error


def read_tasks(root: Path) -> list[tuple[int, str]]:
    """``task_index`` and task, in the order of the file, which is what LeRobot goes by."""

    def pairs(table: Any) -> list[tuple[int, str]]:
        others = [name for name in table.column_names if name != "task_index"]
        # pandas keeps the tasks as an index without a name in datasets of older versions.
        name = "task" if "task" in others else others[0]
        return list(zip(table["task_index"].to_pylist(), table[name].to_pylist(), strict=True))

    return read_table(root, TASKS, pairs)


def read_stats(root: Path) -> dict[str, Statistics]:
    """``meta/stats.json``, arrays float64."""
    return _arrays(read_json(root, STATS), STATS)


def episode_tables(root: Path) -> list[str]:
    """Files of the episodes table, in LeRobot's order."""
    return [
        path.relative_to(root).as_posix() for path in sorted(root.glob(f"{EPISODES}/*/*.parquet"))
    ]


def read_episodes(root: Path, name: str, info: Info) -> list[Episode]:
    """The rows of one file of the episodes table."""

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
            found.append(_episode(row, _arrays(nested, name), name, info))
        return found

    return read_table(root, name, rows)


def read_table[T](
    root: Path, name: str, read: Callable[[Any], T], leave_out: Collection[str] = ()
) -> T:
    """What ``read`` makes of a parquet file's columns but for those to ``leave_out``.

    Raises:
        DatasetError: the file is damaged, or not what ``read`` expects; it is named.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(root / name, page_checksum_verification=True) as file:
            wanted = [c for c in file.schema_arrow.names if c not in leave_out]
            return read(file.read(columns=wanted, use_threads=False))
    except FileNotFoundError as error:
        raise DatasetError(f"{name}: does not exist") from error
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{name}: cannot be read: {one_line(error)}") from error
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DatasetError(f"{name}: is not LeRobot's: {one_line(error)}") from error


def _episode(
    row: Mapping[str, Any], stats: dict[str, Statistics], name: str, info: Info
) -> Episode:
    def place(prefix: str) -> dict[str, int]:
        return {part: int(row[f"{prefix}/{part}"]) for part in ("chunk_index", "file_index")}

    videos = {
        key: Clip(
            info.video_path.format(video_key=key, **place(f"videos/{key}")),
            float(row[f"videos/{key}/from_timestamp"]),
            float(row[f"videos/{key}/to_timestamp"]),
        )
        for key in info.keys("video")
    }
    return Episode(
        index=int(row["episode_index"]),
        length=int(row["length"]),
        start=int(row["dataset_from_index"]),
        stop=int(row["dataset_to_index"]),
        tasks=tuple(row["tasks"]),
        table=name,
        data=info.data_path.format(**place("data")),
        videos=videos,
        stats=stats,
    )


def _arrays(stats: Any, name: str) -> dict[str, Statistics]:
    try:
        return {
            feature: {
                statistic: np.atleast_1d(np.asarray(value, dtype=np.float64))
                for statistic, value in recorded.items()
            }
            for feature, recorded in stats.items()
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise DatasetError(f"{name}: its statistics are no numbers: {one_line(error)}") from error


def one_line(error: Exception) -> str:
    """The message of a library's error, of which only the first line is for people."""
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__
