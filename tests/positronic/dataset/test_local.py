import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from positronic.dataset import ConcatDataset, DiskEpisode, LocalDataset, load_all_datasets
from positronic.errors import DatasetError, EpisodeError

from .conftest import NS, number_of, record


def tasks(dataset: object) -> list[str]:
    assert isinstance(dataset, LocalDataset | ConcatDataset)
    return [episode["task"] for episode in dataset]


def test_order_gaps_blocks_and_unfinished(tmp_path: Path) -> None:
    first = record(tmp_path, frames=1, task="a")
    second = record(tmp_path, frames=1, task="b")
    third = record(tmp_path, frames=1, task="c")
    (tmp_path / "000000002000").mkdir()
    third.rename(tmp_path / "000000002000" / "000000002007")
    (second / ".unfinished").touch()
    (tmp_path / "notes").mkdir()
    (tmp_path / "run_metadata_20260101_000000.yaml").touch()
    dataset = LocalDataset(tmp_path)
    assert tasks(dataset) == ["a", "c"]
    assert dataset[0].meta["path"] == str(first)
    assert tasks(LocalDataset(str(tmp_path))) == ["a", "c"]
    with pytest.raises(EpisodeError, match="still being written"):
        DiskEpisode(second)


def test_dataset_is_a_sequence(tmp_path: Path) -> None:
    for name in "abcd":
        record(tmp_path, frames=1, task=name)
    dataset = LocalDataset(tmp_path)
    assert dataset[-1]["task"] == "d"
    assert [e["task"] for e in dataset[1:3]] == ["b", "c"]
    assert [e["task"] for e in dataset[[3, -4]]] == ["d", "a"]
    assert [e["task"] for e in dataset + dataset[:1]] == ["a", "b", "c", "d", "a"]
    with pytest.raises(IndexError, match="episode 4 of a dataset of 4"):
        dataset[4]
    with pytest.raises(TypeError):
        dataset[[0.5]]  # type: ignore[list-item]


def test_nothing_to_open(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such directory"):
        LocalDataset(tmp_path / "absent")
    with pytest.raises(DatasetError, match="no finished episodes.*record some"):
        LocalDataset(tmp_path)
    with pytest.raises(DatasetError, match="no finished episodes"):
        load_all_datasets(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="not a directory"):
        LocalDataset(tmp_path / "file")
    (record(tmp_path, frames=1) / ".unfinished").touch()
    with pytest.raises(DatasetError, match="1 unfinished skipped"):
        load_all_datasets(tmp_path)


def test_load_all_descends(tmp_path: Path) -> None:
    record(tmp_path / "b" / "deep", frames=1, task="3")
    record(tmp_path / "b", frames=1, task="2")
    record(tmp_path / "a", frames=1, task="1")
    record(tmp_path / ".hidden", frames=1, task="no")
    everything = load_all_datasets(tmp_path)
    assert len(everything) == 3
    assert tasks(everything) == ["1", "2", "3"]
    assert everything[-1]["task"] == "3"
    assert isinstance(load_all_datasets(tmp_path / "a"), LocalDataset)


def test_opening_reads_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(tmp_path, frames=2, task="t")
    with monkeypatch.context() as patch:
        patch.setattr("pyarrow.parquet.ParquetFile", None)
        patch.setattr("av.open", None)
        patch.setattr("positronic.dataset.statics.load", None)
        episode = LocalDataset(tmp_path)[0]
        assert list(episode.signals) == ["grip", "image.wrist", "q"]
    assert list(episode) == ["grip", "image.wrist", "q", "task"]
    assert len(episode) == 4
    assert "task" in episode
    assert "other" not in episode
    with pytest.raises(KeyError, match="'other' is not in this episode, which has grip, image"):
        episode["other"]


def test_broken_json_is_reported_when_touched(tmp_path: Path) -> None:
    record(tmp_path, frames=2, task="good")
    bad = record(tmp_path, frames=2, task="bad")
    (bad / "static.json").write_text("{")
    (bad / "meta.json").write_text("[]")
    good_episode, bad_episode = LocalDataset(tmp_path)
    assert len(bad_episode.signals["grip"]) == 2
    for touch in (lambda: bad_episode.static, lambda: bad_episode["task"]):
        with pytest.raises(EpisodeError, match=rf"{bad}: static.json: .*; restore"):
            touch()
    with pytest.raises(EpisodeError, match="meta.json: .* found a list"):
        _ = bad_episode.meta
    assert good_episode["task"] == "good"


def test_a_broken_signal_leaves_the_others(tmp_path: Path) -> None:
    path = record(tmp_path, frames=2, task="t")
    (path / "q.parquet").write_bytes(b"PAR1")
    episode = LocalDataset(tmp_path)[0]
    assert episode["grip"].time[0] == (0.0, 0)
    assert number_of(episode["image.wrist"][1][0]) == 1
    with pytest.raises(EpisodeError, match="signal 'q'"):
        episode["q"].time[0]


def test_an_episode_that_goes_away(tmp_path: Path) -> None:
    path = record(tmp_path, frames=2)
    dataset = LocalDataset(tmp_path)
    episode = dataset[0]
    shutil.rmtree(path)
    with pytest.raises(EpisodeError, match="signal 'grip': file .*grip.parquet is missing"):
        len(episode["grip"])
    with pytest.raises(EpisodeError, match="is missing"):
        dataset[0]


def test_meta_uid_and_duration(tmp_path: Path) -> None:
    path = record(tmp_path, frames=31)
    episode = DiskEpisode(path)
    meta = episode.meta
    assert meta["schema_version"] == 1
    assert meta["path"] == str(path)
    assert 0 < meta["size_mb"] < 1
    assert "duration_ns" not in meta
    assert episode.uid == meta["uid"]
    assert episode.duration_ns == 2 * NS
    recorded = json.loads((path / "meta.json").read_text())
    (path / "meta.json").write_text(json.dumps({"created_ts_ns": recorded["created_ts_ns"]}))
    old = DiskEpisode(path)
    assert old.uid == f"ts-{recorded['created_ts_ns']}"
    assert old.duration_ns == 2 * NS


def test_recordings_that_nothing_names_are_told_apart(tmp_path: Path) -> None:
    first, second = (record(tmp_path, frames=frames) for frames in (1, 2))
    for path in (first, second):
        (path / "meta.json").unlink()
    copy = shutil.copytree(first, tmp_path / "000000000000" / "000000000009")
    uids = [episode.uid for episode in LocalDataset(tmp_path)]
    assert uids[0] != uids[1]
    assert uids[0] == uids[2] == DiskEpisode(copy).uid


def test_bytes_in_statics(tmp_path: Path) -> None:
    path = record(tmp_path, frames=1)
    (path / "static.json").write_text('{"mesh": {"__bytes_b64__": "AAEC"}, "n": [{"a": 1}]}')
    assert DiskEpisode(path).static == {"mesh": b"\x00\x01\x02", "n": [{"a": 1}]}


def test_episode_time(tmp_path: Path) -> None:
    record(tmp_path, frames=31, task="t")
    episode = LocalDataset(tmp_path)[0]
    row = episode.time[NS]
    assert (row["task"], row["grip"], number_of(row["image.wrist"])) == ("t", 15.0, 15)
    np.testing.assert_array_equal(row["q"], np.full(7, 15, dtype=np.float32))
    rows = episode.time[0::NS]
    assert rows["grip"].tolist() == [0.0, 15.0, 30.0]
    assert rows["q"].shape == (3, 7)
    assert [number_of(i) for i in rows["image.wrist"]] == [0, 15, 30]
    assert episode.time[[NS, 0]]["grip"].tolist() == [15.0, 0.0]
    with pytest.raises(KeyError, match="needs a step"):
        episode.time[0:NS]
    with pytest.raises(KeyError, match="signal 'grip': time -1 ns comes before"):
        episode.time[-1]
