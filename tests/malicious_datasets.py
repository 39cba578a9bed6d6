"""LeRobot datasets that mean harm: small, without LeRobot, of a robot unlike ours."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

CAMERA = "observation.images.top"
INFO: dict[str, Any] = {
    "codebase_version": "v3.0",
    "robot_type": "three_joints",
    "total_episodes": 2,
    "total_frames": 7,
    "total_tasks": 1,
    "total_videos": 2,  # a field of older versions
    "chunks_size": 1000,
    "data_files_size_in_mb": 100,
    "video_files_size_in_mb": 500,
    "fps": 12,
    "splits": {"train": "0:2"},
    "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
    "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    "features": {
        "observation.state": {"dtype": "float32", "shape": [3], "names": {"motors": ["a", "b"]}},
        "action": {"dtype": "float64", "shape": [2], "names": None, "fps": 12.0},
        CAMERA: {
            "dtype": "video",
            "shape": [3, 16, 24],
            "names": ["channels", "height", "width"],
            "info": {"video.codec": "av1", "video.fps": 12.0, "is_depth_map": False},
        },
        **{
            name: {"dtype": dtype, "shape": [1], "names": None}
            for name, dtype in {
                "timestamp": "float32",
                "frame_index": "int64",
                "episode_index": "int64",
                "index": "int64",
                "task_index": "int64",
            }.items()
        },
    },
}
STATS: dict[str, Any] = {
    name: {s: [0.5] * n for s in ("min", "max", "mean", "std", "q01", "q99")} | {"count": [7]}
    for name, n in (("observation.state", 3), ("action", 2), ("timestamp", 1))
} | {CAMERA: {"mean": [[[0.5]], [[0.25]], [[0.1]]], "count": [7]}}
TABLE = "meta/episodes/chunk-000/file-000.parquet"
DATA = "data/chunk-000/file-000.parquet"


def episodes() -> dict[str, list[Any]]:
    """Columns of the table of episodes."""
    place = {f"{kind}/{part}_index": [0, 0] for kind in ("data", f"videos/{CAMERA}")
             for part in ("chunk", "file")}  # fmt: skip
    return {
        "episode_index": [0, 1],
        "tasks": [["press"], ["press"]],
        "length": [4, 3],
        "dataset_from_index": [0, 4],
        "dataset_to_index": [4, 7],
        **place,
        f"videos/{CAMERA}/from_timestamp": [0.0, 4 / 12],
        f"videos/{CAMERA}/to_timestamp": [4 / 12, 7 / 12],
    }


def write(root: Path) -> Path:
    """A dataset whose documents and tables are sound; its video is none."""
    for name in (TABLE, DATA, f"videos/{CAMERA}/chunk-000/file-000.mp4"):
        (root / name).parent.mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(INFO))
    (root / "meta/stats.json").write_text(json.dumps(STATS))
    pq.write_table(pa.table({"task_index": [0], "task": ["press"]}), root / "meta/tasks.parquet")
    pq.write_table(pa.table(episodes()), root / TABLE)
    rows = {
        "observation.state": pa.array([[1.0, 2.0, 3.0]] * 7, pa.list_(pa.float32(), 3)),
        "action": pa.array([[1.0, 2.0]] * 7, pa.list_(pa.float64(), 2)),
        "timestamp": pa.array([0, 1, 2, 3, 0, 1, 2], pa.float32()),
        "frame_index": [0, 1, 2, 3, 0, 1, 2],
        "episode_index": [0, 0, 0, 0, 1, 1, 1],
        "index": list(range(7)),
        "task_index": [0] * 7,
    }
    pq.write_table(pa.table(rows), root / DATA)
    (root / f"videos/{CAMERA}/chunk-000/file-000.mp4").write_bytes(b"no video")
    return root


def info(**changes: Any) -> Callable[[Path], None]:
    """Change fields of info.json."""

    def change(root: Path) -> None:
        (root / "meta/info.json").write_text(json.dumps(INFO | changes))

    return change


def feature(name: str, **changes: Any) -> Callable[[Path], None]:
    """Add a feature, by default three numbers, or change one."""
    said = {"dtype": "float32", "shape": [3], "names": None, **INFO["features"].get(name, {})}
    return info(features=INFO["features"] | {name: said | changes})


def text(name: str, content: str | bytes) -> Callable[[Path], object]:
    """Put something else in place of a document."""
    encoded = content if isinstance(content, bytes) else content.encode()
    return lambda root: (root / name).write_bytes(encoded)


def column(name: str, values: Any) -> Callable[[Path], None]:
    """Change a column of the table of episodes."""
    return lambda root: pq.write_table(pa.table(episodes() | {name: values}), root / TABLE)


def bomb(name: str) -> Callable[[Path], None]:
    """A table of some kilobytes whose columns take gigabytes."""

    def change(root: Path) -> None:
        texts = pa.DictionaryArray.from_arrays(
            pa.array([0] * 2_000_000, pa.int32()), pa.array(["x" * 2000])
        )
        pq.write_table(pa.table({"task_index": [0] * 2_000_000, "tasks": texts}), root / name)

    return change


def pipe(name: str) -> Callable[[Path], None]:
    """A pipe that nobody writes to."""

    def change(root: Path) -> None:
        (root / name).unlink()
        os.mkfifo(root / name)

    return change


def linked(name: str) -> Callable[[Path], None]:
    """A folder of the dataset that is a link out of it."""

    def change(root: Path) -> None:
        outside = root.parent / "outside"
        outside.mkdir()
        (root / name).rename(outside / "moved")
        (root / name).symlink_to(outside / "moved")

    return change


PATH = "data_path"
# Name, what is done to the dataset, and what has to be said; all of it in one line.
MALICIOUS: list[tuple[str, Callable[[Path], Any], str]] = [
    ("absolute data path", info(data_path="/etc/passwd"), "'data_path': expected a plain relative"),
    ("data path that climbs", info(data_path="../{file_index}"), "'data_path': expected a plain"),
    ("video path that climbs", info(video_path="a/../../{video_key}"), "'video_path': expected a"),
    (
        "huge width",
        info(data_path="data/{file_index:0999999999d}"),
        "expected a number of at most 9 digits for file_index",
    ),
    (
        "widths in one another",
        info(data_path="data/{file_index:123456789d}"),
        "expected a number of at most 9 digits for file_index",
    ),
    ("a template without end", info(data_path="{chunk_index:9d}" * 100), "at most 1000 characters"),
    ("nested width", info(data_path="data/{file_index:{chunk_index}}"), "at most 9 digits"),
    (
        "attribute in a template",
        info(data_path="data/{file_index.__class__.__mro__}"),
        "not 'file_index.__class__.__mro__'",
    ),
    ("conversion in a template", info(data_path="data/{file_index!r}"), "file_index as it is"),
    ("field of another", info(data_path="data/{password}"), "not 'password'"),
    ("half a template", info(data_path="data/{file_index"), "'data_path': "),
    ("camera that climbs", feature("../../../camera", dtype="video"), "a camera is named"),
    ("absolute camera", feature("/camera", dtype="video"), "a camera is named '/camera'"),
    ("huge shape", feature("action", shape=[2**40]), "expected a shape of at most"),
    ("negative shape", feature("action", shape=[-1]), "expected a shape"),
    ("shape of text", feature("action", shape=["8"]), "features.action.shape.0"),
    ("features in a list", info(features=[1, 2]), "'features': expected a valid dictionary"),
    ("deep features", text("meta/info.json", '{"a":' * 100_000), "is nested too deeply"),
    ("fps of text", info(fps="30"), "'fps"),
    ("no fps at all", info(fps=float("nan")), "'fps"),
    ("negative frames", info(total_frames=-5), "'total_frames': expected greater than or equal"),
    ("frames without end", info(total_frames=10**400), "'total_frames': expected"),
    ("a list for info", text("meta/info.json", "[]"), "info.json: expected"),
    ("a pipe for info", pipe("meta/info.json"), "is not a regular file"),
    ("huge info", lambda root: os.truncate(root / "meta/info.json", 300 << 20), "is larger than"),
    (
        "statistics of text",
        text("meta/stats.json", '{"action": {"mean": ["1"]}}'),
        "are not numbers",
    ),
    (
        "ragged statistics",
        text("meta/stats.json", '{"a": {"mean": [[1], 2]}}'),
        "not an array of num",
    ),
    ("deep statistics", text("meta/stats.json", "[" * 200_000), "is nested too deeply"),
    ("statistics in a list", text("meta/stats.json", "[1]"), "expected a valid dictionary"),
    ("a pipe for statistics", pipe("meta/stats.json"), "is not a regular file"),
    ("tasks bomb", bomb("meta/tasks.parquet"), "tasks.parquet"),
    ("episodes bomb", bomb(TABLE), "file-000.parquet"),
    ("tasks that are no table", text("meta/tasks.parquet", b"PAR1 PAR1"), "cannot be read"),
    ("file far away", column("data/file_index", [2**62, 0]), "data/file_index"),
    ("file below 0", column("data/chunk_index", [-1, 0]), "data/chunk_index"),
    ("file of text", column(f"videos/{CAMERA}/file_index", ["../x", "/y"]), "file_index"),
    ("rows without end", column("dataset_to_index", [4, 2**50]), "dataset_to_index"),
    ("length of fractions", column("length", [4.5, 3.0]), "length"),
    ("times that are none", column(f"videos/{CAMERA}/from_timestamp", [float("inf"), 0.0]), "from"),
    ("data behind a link", linked("data"), "a symbolic link leads out of the directory"),
    ("videos behind a link", linked("videos"), "a symbolic link leads out of the directory"),
]
