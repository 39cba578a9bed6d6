import json
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from positronic.dataset import DatasetWriter, DiskEpisode, EpisodeWriter, LocalDataset
from positronic.dataset.opening import load_all_datasets
from positronic.errors import DatasetError, EpisodeError

from .conftest import number_of, picture, record


@pytest.fixture
def writer(tmp_path: Path) -> EpisodeWriter:
    return DatasetWriter(tmp_path / "root").new_episode()


def test_the_files_of_an_episode(tmp_path: Path) -> None:
    path = record(tmp_path, frames=3, task="stack")
    assert path == tmp_path / "000000000000" / "000000000000"
    assert sorted(os.listdir(path)) == [
        "grip.parquet",
        "image.wrist.frames.parquet",
        "image.wrist.mp4",
        "meta.json",
        "q.parquet",
        "static.json",
    ]
    assert os.listdir(tmp_path) == ["000000000000"]
    assert (path / "static.json").read_text() == '{\n  "task": "stack"\n}'


def test_meta(tmp_path: Path) -> None:
    path = record(tmp_path, frames=16)
    meta = json.loads((path / "meta.json").read_text())
    assert meta["schema_version"] == 1
    assert meta["created_ts_ns"] > 1.7e18
    assert len(bytes.fromhex(meta["uid"])) == 16
    assert meta["duration_ns"] == 10**9
    assert meta["path"] == str(path)
    assert set(meta["writer"]) == {"python", "platform", "version", "name"}


def test_a_copied_recording_keeps_its_identity(tmp_path: Path) -> None:
    writer = DatasetWriter(tmp_path)
    with writer.new_episode(uid="rig 7/äpfel", created_ts_ns=1_600_000_000_000_000_000) as episode:
        episode.append("grip", 0.5, 3)
    (read,) = LocalDataset(tmp_path)
    assert read.uid == "rig 7/äpfel"
    assert read.meta["created_ts_ns"] == 1_600_000_000_000_000_000
    LocalDataset(tmp_path).drop("rig 7/äpfel")
    with pytest.raises(DatasetError, match="every episode under .* was dropped"):
        load_all_datasets(tmp_path)


@pytest.mark.parametrize("uid", ["", "x" * 201, "a\nb", "files-1"])
def test_a_uid_that_no_reader_takes_leaves_nothing(tmp_path: Path, uid: str) -> None:
    with pytest.raises(ValueError, match="cannot be the uid of an episode"):
        DatasetWriter(tmp_path).new_episode(uid=uid)
    with pytest.raises(ValueError, match="created_ts_ns"):
        DatasetWriter(tmp_path).new_episode(created_ts_ns=-1)
    assert os.listdir(tmp_path) == []


def test_duration_runs_from_the_latest_start_to_the_latest_end(writer: EpisodeWriter) -> None:
    with writer:
        for name, times in {"early": (0, 30), "late": (10, 20)}.items():
            for t in times:
                writer.append(name, 1.0, t)
    episode = DiskEpisode(writer.path)
    assert episode.duration_ns == episode.last_ts - episode.start_ts == 20


def test_numeric_columns(writer: EpisodeWriter) -> None:
    with writer:
        for i in range(3):
            lines = {"world": i, "message": 100 + i}
            writer.append("vector", np.zeros(7, dtype=np.float32), i, lines)
            writer.append("scalar", 1.5, i)
            writer.append("whole", i, i)
    vector = pq.ParquetFile(writer.path / "vector.parquet")
    assert [(f.name, str(f.type)) for f in vector.schema_arrow] == [
        ("timestamp", "int64"),
        ("value", "list<element: float>"),
        ("ts_ns.message", "int64"),
        ("ts_ns.world", "int64"),
    ]
    assert vector.metadata.row_group(0).column(0).compression == "SNAPPY"
    assert vector.read()["ts_ns.message"].to_pylist() == [100, 101, 102]
    scalar = pq.ParquetFile(writer.path / "scalar.parquet").schema_arrow
    assert [str(t) for t in scalar.types] == ["int64", "double"]
    whole = pq.ParquetFile(writer.path / "whole.parquet").schema_arrow
    assert [str(t) for t in whole.types] == ["int64", "int64"]


def test_row_groups(writer: EpisodeWriter) -> None:
    with writer:
        for i in range(20_001):
            writer.append("s", float(i), i)
    metadata = pq.ParquetFile(writer.path / "s.parquet").metadata
    groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert groups == [10_000, 10_000, 1]
    signal = DiskEpisode(writer.path)["s"]
    assert (len(signal), signal.start_ts, signal.last_ts) == (20_001, 0, 20_000)
    assert signal.values().tolist() == list(range(20_001))


def test_video_stream(tmp_path: Path) -> None:
    import av

    path = record(tmp_path, frames=65)
    with av.open(str(path / "image.wrist.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert (stream.average_rate, stream.frames) == (100, 65)
        packets = [packet for packet in container.demux(stream) if packet.pts is not None]
        tick = 1 / (100 * stream.time_base)
        assert [packet.pts for packet in packets] == [i * tick for i in range(65)]
        assert [i for i, packet in enumerate(packets) if packet.is_keyframe] == [0, 30, 60]
    index = pq.ParquetFile(path / "image.wrist.frames.parquet").schema_arrow
    assert [(f.name, str(f.type)) for f in index] == [("ts_ns", "int64")]


def test_extra_time_lines_of_a_video(writer: EpisodeWriter) -> None:
    with writer:
        writer.append("v", picture(1), 5, {"system": 7})
    table = pq.read_table(writer.path / "v.frames.parquet")
    assert table.to_pydict() == {"ts_ns": [5], "ts_ns.system": [7]}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.array(0.5, dtype=np.float32), np.float32),
        (np.float64(2), np.float64),
        (True, np.bool_),
        ([1.0, 2.0], np.float64),
        ((1, 2, 3), np.int64),
        (np.zeros(4, dtype=np.uint8), np.uint8),
        ("moving", np.object_),
        (["a", "bc"], np.object_),
        (np.zeros(0), np.float64),
    ],
)
def test_values_read_back(writer: EpisodeWriter, value: Any, expected: type) -> None:
    with writer:
        writer.append("s", value, 0)
        writer.append("s", value, 1)
    signal = DiskEpisode(writer.path)["s"]
    assert signal.dtype == expected
    assert np.shape(signal[1][0]) == np.shape(value)
    np.testing.assert_array_equal(signal[1][0], value)


def test_texts_of_different_length(writer: EpisodeWriter) -> None:
    with writer:
        for i, text in enumerate(["a", "longer", ""]):
            writer.append("s", text, i)
    assert DiskEpisode(writer.path)["s"].values().tolist() == ["a", "longer", ""]


def test_the_buffer_of_the_caller_is_copied(writer: EpisodeWriter) -> None:
    buffer = np.zeros(3)
    with writer:
        for i in range(3):
            buffer[:] = i
            writer.append("s", buffer, i)
    assert DiskEpisode(writer.path)["s"].values()[:, 0].tolist() == [0.0, 1.0, 2.0]


REFUSED: dict[str, tuple[Callable[[EpisodeWriter], None], str]] = {
    "same time": (lambda w: w.append("s", 1.0, 10), "timestamp 10 is not after the last, 10"),
    "earlier": (lambda w: w.append("v", picture(0), 9), "not after the last"),
    "dtype": (lambda w: w.append("s", 1, 11), "got int64 .*first sample was float64"),
    "shape": (lambda w: w.append("q", np.zeros(6), 11), r"\(6,\), but its first .* \(7,\)"),
    "image size": (lambda w: w.append("v", picture(0, 32), 11), r"\(32, 64, 3\)"),
    "no image": (lambda w: w.append("v", 1.0, 11), "expected an image"),
    "image to a number": (lambda w: w.append("s", picture(0), 11), "cannot be stored"),
    "time lines": (lambda w: w.append("s", 1.0, 11, {"x": 1}), "extra time lines"),
    "matrix": (lambda w: w.append("m", np.zeros((2, 2)), 11), "cannot be stored"),
    "nothing": (lambda w: w.append("n", None, 11), "neither numeric nor text"),
    "object": (lambda w: w.append("n", {"a": 1}, 11), "neither numeric nor text"),
    "ragged": (lambda w: w.append("n", [[1], [1, 2]], 11), "inhomogeneous"),
    "static is there": (lambda w: w.append("task", 1.0, 11), "is a static value"),
    "signal is there": (lambda w: w.set_static("s", 1), "is a signal"),
    "static twice": (lambda w: w.set_static("task", "b"), "already set"),
    "static None": (lambda w: w.set_static("n", None), "None cannot be stored"),
    "slash": (lambda w: w.append("a/b", 1.0, 1), "cannot name a signal"),
    "hidden": (lambda w: w.append(".unfinished", 1.0, 1), "cannot name a signal"),
    "index": (lambda w: w.append("v.frames", 1.0, 1), "cannot name a signal"),
    "empty name": (lambda w: w.append("", 1.0, 1), "cannot name a signal"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_changes_nothing(writer: EpisodeWriter, case: str) -> None:
    act, message = REFUSED[case]
    with writer:
        writer.set_static("task", "a")
        for t in (5, 10):
            writer.append("s", 1.0, t)
            writer.append("q", np.zeros(7), t)
            writer.append("v", picture(t), t)
        with pytest.raises(ValueError, match=message):
            act(writer)
        for name, value in (("s", 2.0), ("q", np.ones(7)), ("v", picture(12))):
            writer.append(name, value, 12)
    episode = DiskEpisode(writer.path)
    assert list(episode) == ["q", "s", "v", "task"]
    assert {len(signal) for signal in episode.signals.values()} == {3}
    assert episode["s"].time[12] == (2.0, 12)
    assert number_of(episode["v"].time[12][0]) == 12


def test_unfinished_while_recording(tmp_path: Path) -> None:
    record(tmp_path, frames=1, task="before")
    with DatasetWriter(tmp_path).new_episode() as writer:
        writer.append("s", 1.0, 0)
        assert writer.path.parent == tmp_path
        assert (writer.path / ".unfinished").exists()
        assert len(LocalDataset(tmp_path)) == 1
    assert not list(tmp_path.glob("**/.unfinished"))
    assert len(LocalDataset(tmp_path)) == 2


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_exception_removes_the_episode(tmp_path: Path, kind: type[BaseException]) -> None:
    root = tmp_path / "root"

    def interrupted() -> None:
        with DatasetWriter(root).new_episode() as writer:
            writer.append("v", picture(0), 0)
            writer.append("s", 1.0, 0)
            raise kind

    with pytest.raises(kind):
        interrupted()
    assert os.listdir(root) == []


def test_abort(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with DatasetWriter(root).new_episode() as writer:
        writer.append("v", picture(0), 0)
        writer.abort()
        writer.abort()
    assert os.listdir(root) == []
    with pytest.raises(EpisodeError, match="is aborted, expected recording"):
        writer.append("s", 1.0, 0)


def test_nothing_is_added_after_publishing(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path).new_episode() as writer:
        writer.append("s", 1.0, 0)
    with pytest.raises(EpisodeError, match="is published"):
        writer.append("s", 1.0, 1)
    with pytest.raises(EpisodeError, match="is published"):
        writer.set_static("a", 1)
    writer.abort()
    assert len(LocalDataset(tmp_path)) == 1


def test_failure_to_finish_aborts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("positronic.dataset.writer.sync", full)
    with (
        pytest.raises(OSError, match="No space left"),
        DatasetWriter(tmp_path).new_episode() as writer,
    ):
        writer.append("s", 1.0, 0)
    assert os.listdir(tmp_path) == []


def test_stage_then_publish_in_chosen_order(tmp_path: Path) -> None:
    dataset = DatasetWriter(tmp_path)
    staged = []
    for name in "ab":
        with DatasetWriter(tmp_path).new_episode() as writer:
            writer.append("s", 1.0, 0)
            writer.set_static("task", name)
            staged.append(writer.stage())
    with pytest.raises(DatasetError, match="no finished episodes"):
        LocalDataset(tmp_path)
    paths = [dataset.publish(path) for path in reversed(staged)]
    assert [path.name for path in paths] == ["000000000000", "000000000001"]
    assert [episode["task"] for episode in LocalDataset(tmp_path)] == ["b", "a"]
    assert json.loads((paths[1] / "meta.json").read_text())["path"] == str(paths[1])


def test_only_staged_episodes_are_published(tmp_path: Path) -> None:
    dataset = DatasetWriter(tmp_path / "one")
    elsewhere = DatasetWriter(tmp_path / "two").new_episode()
    elsewhere.append("s", 1.0, 0)
    unstaged = dataset.new_episode()
    for path in (elsewhere.stage(), unstaged.path, tmp_path / "absent"):
        with pytest.raises(DatasetError, match="not a staged episode"):
            dataset.publish(path)


def test_numbers_go_on_after_gaps_and_unfinished(tmp_path: Path) -> None:
    for number in ("000000000000", "000000000997"):
        (tmp_path / "000000000000" / number).mkdir(parents=True)
    (tmp_path / "000000000000" / "000000000998").mkdir()
    (tmp_path / "000000000000" / "000000000998" / ".unfinished").touch()
    names = [record(tmp_path, frames=1).relative_to(tmp_path).as_posix() for _ in range(3)]
    assert names == [
        "000000000000/000000000999",
        "000000001000/000000001000",
        "000000001000/000000001001",
    ]


def test_a_number_taken_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = []
    monkeypatch.setattr(DatasetWriter, "_next_number", lambda self: 0)
    monkeypatch.setattr(Path, "exists", lambda self: False)  # the other one is a moment earlier
    for _ in range(3):
        paths.append(record(tmp_path, frames=1))
    assert [path.name for path in paths] == ["000000000000", "000000000001", "000000000002"]


def test_root_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / "file" / "inner"):
        with pytest.raises(DatasetError, match="a file is in the way"):
            DatasetWriter(root)


def _record_some(root: str, worker: int) -> list[str]:
    paths = []
    for i in range(16):
        with DatasetWriter(root).new_episode() as writer:
            writer.append("s", float(worker), 0)
            writer.set_static("who", [worker, i])
        paths.append(str(writer.path))
    return paths


def test_many_processes_on_one_root(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        results = pool.map(_record_some, [str(tmp_path)] * 2, range(2))
        paths = [path for result in results for path in result]
    assert len(set(paths)) == 32
    dataset = LocalDataset(tmp_path)
    assert sorted(episode["who"] for episode in dataset) == [
        [worker, i] for worker in range(2) for i in range(16)
    ]
    assert sorted(Path(path).name for path in paths) == [f"{i:012d}" for i in range(32)]
    assert os.listdir(tmp_path) == ["000000000000"]


def test_times_and_texts_that_no_reader_takes_are_refused_while_recording(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path).new_episode() as writer:
        writer.append("grip", 1.0, 0, {"world": 0})
        for time, extra in ((2**63, 1), (5, -(2**63))):
            with pytest.raises(ValueError, match="is not a plausible time"):
                writer.append("grip", 1.0, time, {"world": extra})
        with pytest.raises(ValueError, match="not Unicode"):
            writer.set_static("task", {"inner": ["\ud800"]})
        writer.append("grip", 2.0, 10, {"world": 1})
    (episode,) = LocalDataset(tmp_path)
    assert episode["grip"].timestamps().tolist() == [0, 10]
