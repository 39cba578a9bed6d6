"""Ways to damage a converted dataset of 13, 6 and 10 rows, and what has to be said of each."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pyarrow as pa
import pyarrow.parquet as pq

from foundation.video import Encoder
from positronic.codec import Contract
from positronic.vendors.lerobot.conversion.video import VideoWriter, join
from tests.positronic.vendors.lerobot.raw import FPS, picture

DATA = "data/chunk-000/file-000.parquet"
TABLE = "meta/episodes/chunk-000/file-000.parquet"
LEFT = "videos/observation.images.left/chunk-000/file-000.mp4"
SIZE = (64, 64)


def edit(root: Path, name: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """Write a table anew, with its metadata, as one who damages it by a tool would."""
    pq.write_table(change(pq.read_table(root / name)), root / name)


def put(table: pa.Table, column: str, row: int, value: Any) -> pa.Table:
    """The table with one cell changed."""
    at = table.schema.get_field_index(column)
    cells = table[column].to_pylist()
    cells[row] = value
    return table.set_column(
        at, table.schema.field(at), pa.array(cells, table.schema.field(at).type)
    )


def edit_json(root: Path, name: str, change: Callable[[Any], Any]) -> None:
    document = json.loads((root / name).read_text())
    change(document)
    (root / name).write_text(json.dumps(document))


type Damage = tuple[str, Callable[[Path], object], list[str]]


def cut(name: str, share: float) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        content = (root / name).read_bytes()
        (root / name).write_bytes(content[: int(len(content) * share)])

    return damage


def cell(name: str, column: str, row: int, value: Any) -> Callable[[Path], None]:
    return lambda root: edit(root, name, lambda table: put(table, column, row, value))


def swap_rows(root: Path) -> None:
    order = [*range(14), 15, 14, *range(16, 29)]
    edit(root, DATA, lambda table: table.take(order))


def drop_row(root: Path) -> None:
    edit(root, DATA, lambda table: pa.concat_tables([table[:16], table[17:]]))


def nan_state(root: Path) -> None:
    cell(DATA, "observation.state", 20, [float("nan")] + [0.0] * 7)(root)


def short_state(root: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        at = table.schema.get_field_index("observation.state")
        rows = [row[:7] for row in table["observation.state"].to_pylist()]
        return table.set_column(at, "observation.state", pa.array(rows, pa.list_(pa.float32())))

    edit(root, DATA, change)


def doubles(root: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        at = table.schema.get_field_index("action")
        rows = pa.array(table["action"].to_pylist(), pa.list_(pa.float64(), 8))
        return table.set_column(at, "action", rows)

    edit(root, DATA, change)


def info(**changes: Any) -> Callable[[Path], None]:
    return lambda root: edit_json(root, "meta/info.json", lambda document: document.update(changes))


def stats_of_dataset(root: Path) -> None:
    def change(stats: Any) -> None:
        stats["action"]["mean"][3] += 0.001

    edit_json(root, "meta/stats.json", change)


def no_stats_and_a_row_less(root: Path) -> None:
    """The one must not hide the other."""
    (root / "meta/stats.json").unlink()
    drop_row(root)


def contract(change: Callable[[Contract], Contract]) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        change(Contract.load(root / "meta")).save(root / "meta")

    return damage


def rename_feature(found: Contract) -> Contract:
    features = {name.replace("state", "pose"): f for name, f in found.features.items()}
    return found.replace(features=features)


def twice(root: Path) -> None:
    def change(document: Any) -> None:
        document["episodes"][2]["uid"] = document["episodes"][0]["uid"]

    edit_json(root, "meta/provenance.json", change)


def forget_one(root: Path) -> None:
    edit_json(root, "meta/provenance.json", lambda document: document["episodes"].pop())


def remove(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).unlink()


def extra(name: str, source: str) -> Callable[[Path], object]:
    def damage(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / source, root / name)

    return damage


def missing_task(root: Path) -> None:
    edit(root, "meta/tasks.parquet", lambda table: table[:1])
    info(total_tasks=1)(root)


def packets(root: Path) -> list[tuple[int, int]]:
    with av.open(str(root / LEFT)) as container:
        found = container.demux(container.streams.video[0])
        return [(packet.pos or 0, packet.size) for packet in found if packet.size]


def garble(root: Path) -> None:
    """Other bytes within a picture, frame 3 of episode 1; the container stays intact."""
    position, size = packets(root)[16]
    content = bytearray((root / LEFT).read_bytes())
    inside = slice(position + 8, position + size)
    content[inside] = bytes(byte ^ 0x55 for byte in content[inside])
    (root / LEFT).write_bytes(content)


def rewrite(root: Path, frames: range, *, size: tuple[int, int] = SIZE, dark: int = 0) -> None:
    encoder = Encoder("h264", "yuv420p", {"g": "2", "crf": "23", "preset": "veryfast", "bf": "0"})
    with VideoWriter(root / "other.mp4", FPS, encoder) as video:
        for number in frames:
            video.add(picture(0, number, 0, size) // (dark or 1))
    join([root / "other.mp4"], root / LEFT, FPS)
    (root / "other.mp4").unlink()


LEFT_STATS = "stats/observation.images.left/mean"
DAMAGES: list[Damage] = [
    (
        "info counts",
        info(total_frames=30, total_episodes=4),
        ["total_episodes is 4", "total_frames is 30"],
    ),
    ("info tasks", info(total_tasks=1), ["meta/info.json: total_tasks is 1, the tables have 2"]),
    ("info split", info(splits={"train": "0:5"}), ["split train is '0:5', there are 3 episodes"]),
    ("info version", info(codebase_version="v2.1"), ["format v2.1, expected v3.0"]),
    ("info gone bad", cut("meta/info.json", 0.5), ["meta/info.json: is not JSON"]),
    (
        "info fps",
        info(fps=10),
        ["LEFT: is video at 15 fps, expected 10 fps", "contract.json: fps is 15"],
    ),
    ("data cut", cut(DATA, 0.6), ["data/chunk-000/file-000.parquet: cannot be read"]),
    ("data gone", remove(DATA), ["DATA: does not exist; episode 0, 1, 2 should be in it"]),
    ("row dropped", drop_row, ["DATA: episode 1: has 5 rows, expected 6; missing: frame 3"]),
    (
        "rows swapped",
        swap_rows,
        ["DATA: episode 1: frame_index of frame 1 is 2, expected 1", "index of frame 1"],
    ),
    ("index", cell(DATA, "index", 15, 3), ["DATA: episode 1: index of frame 2 is 3, expected 15"]),
    (
        "episode_index",
        cell(DATA, "episode_index", 28, 7),
        ["DATA: episode 7: has rows in this file", "episode 2: has 9 rows"],
    ),
    (
        "frame_index",
        cell(DATA, "frame_index", 0, 1),
        ["episode 0: frame_index of frame 0 is 1, expected 0"],
    ),
    (
        "timestamp",
        cell(DATA, "timestamp", 15, 0.14),
        ["episode 1: timestamp of frame 2 is 0.14 s, expected 0.133333 s"],
    ),
    (
        "task_index",
        cell(DATA, "task_index", 20, 1),
        ["episode 2: task_index of frame 1 is 1, 'odd', where", "says 'even'"],
    ),
    ("nan", nan_state, ["DATA: episode 2: observation.state of frame 1 has NaN"]),
    (
        "shape",
        short_state,
        ["DATA: column observation.state: row 0 has 7 values, expected 8 (and 28 more)"],
    ),
    ("dtype", doubles, ["DATA: column action: is of type double, expected float"]),
    (
        "column",
        lambda r: edit(r, DATA, lambda t: t.drop(["action"])),
        ["DATA: column action: is missing"],
    ),
    (
        "value",
        cell(DATA, "action", 3, [9.0] * 8),
        ["DATA: episode 0: statistics of action in TABLE: ", "meta/stats.json: action: max[0] is"],
    ),
    ("table cut", cut(TABLE, 0.9), ["TABLE: cannot be read"]),
    (
        "table column",
        lambda r: edit(r, TABLE, lambda t: t.drop(["length"])),
        ["TABLE: is not LeRobot's: 'length'"],
    ),
    (
        "table row",
        lambda r: edit(r, TABLE, lambda t: t.take([0, 2])),
        ["episode 2: is in row 1, where episode 1", "episode 1: has rows in this file"],
    ),
    (
        "length",
        cell(TABLE, "length", 1, 7),
        [
            "TABLE: episode 1: dataset_from_index 13 to dataset_to_index 19 are 6 rows,"
            " its length is 7"
        ],
    ),
    (
        "overlap",
        cell(TABLE, "dataset_from_index", 2, 18),
        ["TABLE: episode 2: dataset_from_index is 18, expected 19"],
    ),
    (
        "its task",
        cell(TABLE, "tasks", 1, ["sing"]),
        ["TABLE: episode 1: its tasks are not in meta/tasks.parquet: 'sing'"],
    ),
    (
        "its file",
        cell(TABLE, "data/file_index", 0, 9),
        ["data/chunk-000/file-009.parquet: does not exist; episode 0"],
    ),
    (
        "stats of an episode",
        cell(TABLE, "stats/action/q50", 1, [0.1] * 8),
        ["DATA: episode 1: statistics of action in TABLE: q50[0] is 0.1"],
    ),
    (
        "stats of a camera",
        cell(TABLE, LEFT_STATS, 1, [[[0.1]]] * 3),
        ["LEFT: episode 1: statistics of observation.images.left in TABLE: mean[0] is 0.1"],
    ),
    (
        "stats gone",
        lambda r: edit(
            r, TABLE, lambda t: t.drop([c for c in t.column_names if c.startswith("stats/action/")])
        ),
        ["no statistics of action in TABLE"],
    ),
    (
        "stats of the dataset",
        stats_of_dataset,
        [
            "meta/stats.json: action: mean[3] is",
            "contract.json: stats_digest is not that of meta/stats.json",
        ],
    ),
    (
        "stats of a feature",
        lambda root: edit_json(root, "meta/stats.json", lambda stats: stats.pop("action")),
        ["meta/stats.json: no statistics of action"],
    ),
    (
        "stats file gone",
        no_stats_and_a_row_less,
        ["meta/stats.json: does not exist", "DATA: episode 1: has 5 rows"],
    ),
    ("tasks gone", remove("meta/tasks.parquet"), ["meta/tasks.parquet: does not exist"]),
    (
        "tasks missing",
        missing_task,
        ["TABLE: episode 1: its tasks are not in meta/tasks.parquet: 'odd'"],
    ),
    (
        "tasks twice",
        cell("meta/tasks.parquet", "task_index", 1, 0),
        ["meta/tasks.parquet: task_index of 'odd' is 0, expected 1"],
    ),
    ("video gone", remove(LEFT), ["LEFT: does not exist; episode 0, 1, 2"]),
    (
        "video cut",
        cut(LEFT, 0.6),
        ["LEFT: has", "LEFT: episode 2: frame 0 is not in the file (and 9 more)"],
    ),
    ("video cut short", cut(LEFT, 0.01), ["LEFT: cannot be read"]),
    ("video garbled", garble, ["LEFT: episode 1: frame 3 cannot be decoded"]),
    (
        "frame missing",
        lambda r: rewrite(r, range(28)),
        ["LEFT: has 28 frames, expected 29", "LEFT: episode 2: frame 9 is not in the file"],
    ),
    ("frame too many", lambda r: rewrite(r, range(30)), ["LEFT: has 30 frames, expected 29"]),
    (
        "another size",
        lambda r: rewrite(r, range(29), size=(32, 64)),
        ["LEFT: is an image 32x64, expected 64x64"],
    ),
    (
        "another picture",
        lambda r: rewrite(r, range(29), dark=4),
        ["LEFT: episode 0: statistics of observation.images.left"],
    ),
    (
        "from_timestamp",
        cell(TABLE, "videos/observation.images.left/from_timestamp", 1, 0.84),
        [
            "LEFT: episode 1: from_timestamp 0.84 to to_timestamp 1.26667",
            "begins at 0.84 s, before episode 0 ends",
            "frame 0 is at",
        ],
    ),
    (
        "a file too many",
        extra("data/chunk-000/file-007.parquet", DATA),
        ["data/chunk-000/file-007.parquet: no episode refers to it"],
    ),
    (
        "a video too many",
        extra(LEFT.replace("000.mp4", "001.mp4"), LEFT),
        ["file-001.mp4: no episode refers to it"],
    ),
    ("contract gone", remove("meta/contract.json"), ["meta/contract.json: does not exist"]),
    (
        "contract feature",
        contract(rename_feature),
        [
            "contract.json: feature observation.pose is missing in meta/info.json",
            "feature observation.state is missing in it",
        ],
    ),
    (
        "contract fps",
        contract(lambda c: c.replace(fps=30)),
        ["contract.json: fps is 30, meta/info.json says 15"],
    ),
    (
        "contract digest",
        contract(lambda c: c.replace(stats_digest="0" * 64)),
        ["stats_digest is not that of"],
    ),
    (
        "one recording twice",
        twice,
        ["provenance.json: episode 2: is the same recording as episode 0"],
    ),
    (
        "one recording less",
        forget_one,
        ["provenance.json: lists 2 recordings, there are 3 episodes"],
    ),
]
