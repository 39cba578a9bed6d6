"""Recordings as they really are: right in every row, or refused by name beside the others."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from positronic.dataset import DatasetWriter, LocalDataset
from positronic.vendors.lerobot import codecs
from positronic.vendors.lerobot.conversion.pipeline import Options, Report, convert_dataset
from positronic.vendors.lerobot.verification.verify import verify_dataset

MS, SECOND = 10**6, 10**9
NAMES = {
    "observation.images.left": "image.wrist",
    "observation.images.side": "image.exterior",
}
CODEC = codecs.eepose_absolute(image_size=(32, 32))


def ticks(rate: float, seconds: float, start: float = 0.0) -> NDArray[np.int64]:
    """Times in ns, at ``rate`` a second."""
    return np.array([int((start + i / rate) * SECOND) for i in range(int(seconds * rate) + 1)])


def times_of(**changes: NDArray[np.int64] | None) -> dict[str, NDArray[np.int64]]:
    """Times of a second of recording, by signal; ``None`` leaves a signal out."""
    times = {
        "robot_state.ee_pose": ticks(100, 1),
        "grip": ticks(100, 1),
        "robot_commands.pose": ticks(15, 1),
        "target_grip": ticks(15, 1),
        "image.wrist": ticks(15, 1),
        "image.exterior": ticks(15, 1),
    }
    given = {name.replace("__", "."): value for name, value in changes.items()}
    return {name: t for name, t in (times | given).items() if t is not None}


def value_of(name: str, number: int, size: tuple[int, int]) -> Any:
    """A value that tells which sample it is; in images it is the grey, 8 apart."""
    if name.startswith("image."):
        return np.full((*size, 3), 8 + 8 * (number % 30), dtype=np.uint8)
    if name in ("grip", "target_grip"):
        return number / 1024
    return np.array([number / 1024, 0, 0, 1, 0, 0, 0], dtype=np.float64)


def record(
    root: Path,
    times: dict[str, NDArray[np.int64]],
    *,
    task: Any = "stack",
    size: tuple[int, int] = (32, 32),
) -> Path:
    with DatasetWriter(root).new_episode() as episode:
        if task is not None:
            episode.set_static("task", task)
        for name, stamps in times.items():
            for number, time in enumerate(stamps):
                episode.append(name, value_of(name, number, size), int(time))
    return episode.path


def expected(times: dict[str, NDArray[np.int64]], fps: int) -> dict[str, list[int]]:
    """For each signal the sample of each row, in exact arithmetic."""
    start = max(int(t[0]) for t in times.values())
    last = max(int(t[-1]) for t in times.values())
    count = 1 + int(Fraction(last - start + 1, SECOND) * fps)
    rows = [start + Fraction(row * SECOND, fps) for row in range(count)]
    rows = [row for row in rows if int(row) <= last]
    # A sample's time is cut to nanoseconds, and so is a row's, so they may be one apart.
    return {
        name: [int(np.searchsorted(t, int(row) + 1, side="right")) - 1 for row in rows]
        for name, t in times.items()
    }


def convert(root: Path, fps: int = 15, **options: Any) -> Report:
    """Convert and prove the result whole."""
    given = Options(workers=1, **options)
    report = convert_dataset(LocalDataset(root / "raw"), CODEC, root / "out", fps, given)
    verdict = verify_dataset(root / "out", workers=1)
    assert verdict.faults == ()
    assert verdict.episodes == report.episodes
    return report


def opened(root: Path) -> Any:
    from lerobot.datasets import LeRobotDataset

    return LeRobotDataset("local", root=root / "out", video_backend="pyav")


def check(dataset: Any, first: int, times: dict[str, NDArray[np.int64]], fps: int) -> int:
    """Each row is of the samples that it should be; the number of rows."""
    samples = expected(times, fps)
    count = len(samples["grip"])
    for row in range(count):
        item = dataset[first + row]
        assert int(item["frame_index"]) == row
        assert float(item["timestamp"]) == pytest.approx(row / fps, abs=1e-6)
        state, action = item["observation.state"].numpy() * 1024, item["action"].numpy() * 1024
        found = {
            "robot_state.ee_pose": state[0],
            "grip": state[7],
            "robot_commands.pose": action[0],
            "target_grip": action[7],
        }
        for feature, name in NAMES.items():
            found[name] = (item[feature].numpy().mean() * 255 - 8) / 8 % 30
        for name, value in found.items():
            wanted = samples[name][row] % (30 if name in NAMES.values() else 10**9)
            assert round(float(value)) == wanted, (name, row)
    return count


@pytest.mark.parametrize("fps", [7, 13, 30])
def test_rates_that_do_not_divide_the_recording(tmp_path: Path, fps: int) -> None:
    times = times_of()
    record(tmp_path / "raw", times)
    report = convert(tmp_path, fps)
    assert check(opened(tmp_path), 0, times, fps) == report.frames == fps + 1


@pytest.mark.parametrize(
    "times",
    [
        times_of(image__wrist=ticks(29.97, 1.0), image__exterior=ticks(4, 1)),
        times_of(image__wrist=ticks(15, 0.7, 0.3), image__exterior=ticks(15, 0.8, 0.111)),
        times_of(image__wrist=np.delete(ticks(15, 4), slice(10, 50)), grip=ticks(100, 4)),
        times_of(robot_commands__pose=np.delete(ticks(15, 3), slice(2, 40))),
        times_of(robot_state__ee_pose=ticks(100, 0.5, 0.5), grip=ticks(100, 0.9, 0.1)),
        times_of(target_grip=ticks(15, 0), image__exterior=ticks(15, 2)),
        {name: t + 1_758_000_000 * SECOND + 123 for name, t in times_of().items()},
    ],
    ids=[
        "cameras of different rates",
        "cameras that start at different times",
        "a camera without pictures for seconds",
        "commands missing for seconds",
        "clocks that start late",
        "one command, and it ends first",
        "times since 1970",
    ],
)
def test_each_row_is_of_the_last_samples_before_it(
    tmp_path: Path, times: dict[str, NDArray[np.int64]]
) -> None:
    record(tmp_path / "raw", times_of())
    record(tmp_path / "raw", times)
    report = convert(tmp_path)
    dataset = opened(tmp_path)
    count = check(dataset, 0, times_of(), 15)
    assert count + check(dataset, count, times, 15) == report.frames


def test_pictures_of_other_sizes(tmp_path: Path) -> None:
    """Sizes change between recordings, and odd ones lose no line: bars are black, nothing else."""
    for size in ((32, 32), (31, 31), (15, 33), (64, 48)):
        record(tmp_path / "raw", times_of(), size=size)
    report = convert(tmp_path, video=False)
    assert (report.episodes, report.refused) == (4, ())
    dataset = opened(tmp_path)
    for episode, (height, width) in enumerate(((32, 32), (31, 31), (15, 33), (64, 48))):
        scale = max(height, width) / 32
        shape = (int(height / scale), int(width / scale))
        image = dataset[16 * episode + 3]["observation.images.left"].numpy() * 255
        shown = np.argwhere(image[0] > 0)
        extent = shown.max(axis=0) - shown.min(axis=0) + 1
        assert tuple(extent) == shape
        assert np.abs(image[image > 0] - (8 + 8 * 3)).max() < 2


def test_tasks_of_every_kind(tmp_path: Path) -> None:
    """Among them one that is as long as its episode, which the public converter cuts to letters."""
    tasks = ["sixteen letters!", "", "grün 立方体 🤖", "two\nlines", "x" * 5000, "sixteen letters!"]
    assert len(tasks[0]) == 16
    for task in tasks:
        record(tmp_path / "raw", times_of(), task=task)
    record(tmp_path / "raw", times_of(), task=None)
    listed = record(tmp_path / "raw", times_of(), task=["a"] * 16)
    report = convert(tmp_path)
    dataset = opened(tmp_path)
    for episode, task in enumerate([*tasks, ""]):
        assert {dataset[16 * episode + row]["task"] for row in range(16)} == {task}
    assert dataset.meta.total_tasks == 5
    ((source, reason),) = report.refused
    assert source == str(listed)
    assert "its static 'task' is ['a'" in reason


def empty(path: Path, name: str) -> None:
    table = pa.table({"timestamp": pa.array([], pa.int64()), "value": pa.array([], pa.int64())})
    pq.write_table(table, path / f"{name}.parquet")


def damage_index(path: Path) -> None:
    index = path / "image.exterior.frames.parquet"
    index.write_bytes(index.read_bytes()[:-20])


def damage_video(path: Path) -> None:
    content = bytearray((path / "image.wrist.mp4").read_bytes())
    content[len(content) // 3 : len(content) // 3 + 40] = bytes(40)
    (path / "image.wrist.mp4").write_bytes(content)


def back_in_time(path: Path) -> None:
    table = pq.read_table(path / "grip.parquet")
    stamps = table["timestamp"].to_pylist()
    stamps[40], stamps[41] = stamps[41], stamps[40]
    pq.write_table(table.set_column(0, "timestamp", pa.array(stamps)), path / "grip.parquet")


def nan_at(path: Path, sample: int) -> None:
    table = pq.read_table(path / "robot_state.ee_pose.parquet")
    values = table["value"].to_pylist()
    values[sample][4] = float("nan")
    field = table.schema.field("value")
    pq.write_table(
        table.set_column(1, field, pa.array(values, field.type)),
        path / "robot_state.ee_pose.parquet",
    )


def no_rotation(path: Path) -> None:
    table = pq.read_table(path / "robot_commands.pose.parquet")
    field = table.schema.field("value")
    values = pa.array([[0.0] * 7] * len(table), field.type)
    pq.write_table(table.set_column(1, field, values), path / "robot_commands.pose.parquet")


def test_bad_recordings_are_named_and_cost_the_others_nothing(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    clock_was_set = np.concatenate([ticks(100, 0.5), ticks(100, 0.5, 1_758_000_000)])
    kinds: list[tuple[dict[str, NDArray[np.int64]], Any, str]] = [
        (times_of(), None, ""),
        (times_of(), lambda p: empty(p, "grip"), "has no samples of grip"),
        (times_of(target_grip=None), None, "has no signal target_grip; its signals are"),
        ({n: ticks(100, 0.05) for n in times_of()}, None, "is shorter than a frame"),
        (times_of(), damage_video, "image.wrist"),
        (times_of(), damage_index, "image.exterior"),
        (times_of(), back_in_time, "go back in time"),
        (
            times_of(),
            lambda p: nan_at(p, 40),
            "its robot_state.ee_pose holds NaN or infinity at 0.40 s",
        ),
        (times_of(), no_rotation, "'robot_commands.pose' holds no rotation"),
        (
            times_of(grip=clock_was_set),
            None,
            "its timestamps span 488333 hours, expected at most 24",
        ),
        (times_of(image__wrist=ticks(15, 1, -1.5)), None, "image.wrist ends 0.5 s before all"),
        (
            times_of(image__wrist=ticks(15, 1, 4000)),
            None,
            "image.exterior ends 3999.0 s before all",
        ),
        (times_of(target_grip=ticks(15, 1, -4000)), None, "target_grip ends 1.1 h before the last"),
        (times_of(), lambda p: nan_at(p, 42), ""),  # no row is of this sample
    ]
    paths = []
    for times, damage, _ in kinds:
        paths.append(record(root, times))
        if damage:
            damage(paths[-1])
    report = convert(tmp_path)
    reasons = dict(report.refused)
    wanted = {str(path): kind[2] for path, kind in zip(paths, kinds, strict=True) if kind[2]}
    assert list(reasons) == list(wanted)
    for path, text in wanted.items():
        assert text in reasons[path], path
    assert report.episodes == 2
    dataset = opened(tmp_path)
    assert check(dataset, 0, times_of(), 15) == 16
    assert check(dataset, 16, times_of(), 15) == 16
    provenance = json.loads((tmp_path / "out/meta/provenance.json").read_text())
    assert [e["source"] for e in provenance["episodes"]] == [str(paths[0]), str(paths[-1])]
    refusals = [line for line in report.warnings() if line.startswith("refused ")]
    assert len(refusals) == len(wanted)
