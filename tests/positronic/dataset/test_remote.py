import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foundation import storage
from foundation.errors import StorageError
from positronic.dataset import DiskEpisode, load_all_datasets
from positronic.dataset.conventions import adapted
from positronic.dataset.remote import RemoteDataset
from positronic.dataset.subsets import share_of, split, where
from positronic.errors import DatasetError, EpisodeError
from tests.hub_server import HubServer
from tests.s3 import Faulty

from .conftest import number_of, record
from .test_edits import note, uid

URL = "s3://bucket/raw"
EPISODE = "000000000000/00000000000"

Upload = Callable[..., None]


@pytest.fixture
def upload(s3: Any) -> Upload:
    """Put a directory into the bucket, file by file, as other tools do."""

    def put(directory: Path, prefix: str = "raw") -> None:
        for path in sorted(directory.rglob("*")):
            if path.is_file():
                key = f"{prefix}/{path.relative_to(directory)}"
                s3.put_object(Bucket="bucket", Key=key, Body=path.read_bytes())

    return put


@pytest.fixture
def raw(tmp_path: Path, upload: Upload) -> Path:
    """Three episodes, local and in the bucket."""
    for task in ("a", "b", "a"):
        record(tmp_path / "raw", frames=4, task=task)
    upload(tmp_path / "raw")
    return tmp_path / "raw"


def fetched(faulty: Faulty) -> list[str]:
    """Names of the files asked for since the last time, below the dataset."""
    gets = [path.partition("?")[0] for method, path in faulty.requests if method == "GET"]
    faulty.requests.clear()
    return sorted(path.removeprefix("/bucket/raw/") for path in gets if "/raw/0" in path)


def test_only_what_is_read_is_fetched_and_only_once(raw: Path, faulty: Faulty) -> None:
    dataset = load_all_datasets(URL)
    assert len(dataset) == 3
    assert len(share_of(dataset, 0.4, 1)) == len(split(dataset, 0.3, 1)[1]) == 1
    listings = faulty.count("GET", "list-type")
    episode = dataset[1]
    assert list(episode.signals) == ["grip", "image.wrist", "q"]
    assert fetched(faulty) == []
    assert episode["task"] == "b"
    assert fetched(faulty) == [f"{EPISODE}1/static.json"]
    assert len(episode["grip"]) == 4
    assert fetched(faulty) == [f"{EPISODE}1/grip.parquet"]
    assert [number_of(image) for image in episode["image.wrist"].values()] == [0, 1, 2, 3]
    files = [f"{EPISODE}1/image.wrist.frames.parquet", f"{EPISODE}1/image.wrist.mp4"]
    assert fetched(faulty) == files
    again = load_all_datasets(URL)[1]
    assert (again["task"], len(again["grip"]), len(again["image.wrist"])) == ("b", 4, 4)
    assert fetched(faulty) == []
    assert listings == 1


def test_it_holds_what_the_local_one_holds(raw: Path) -> None:
    remote = load_all_datasets(URL)
    assert isinstance(remote, RemoteDataset)
    locals_ = [DiskEpisode(path) for path in sorted(raw.glob("0*/0*"))]
    for ours, theirs in zip(remote, locals_, strict=True):
        assert ours.static == theirs.static
        assert ours.uid == theirs.uid
        assert ours.duration_ns == theirs.duration_ns
        assert ours.meta["path"] == f"{URL}/{theirs.path.relative_to(raw)}"
        assert ours.meta | {"path": ""} == theirs.meta | {"path": ""}
        for name, signal in theirs.signals.items():
            np.testing.assert_array_equal(ours[name].timestamps(), signal.timestamps())
            np.testing.assert_array_equal(ours[name].values(), signal.values())


def test_choosing_by_static_values_fetches_these_at_once(raw: Path, faulty: Faulty) -> None:
    chosen = where(load_all_datasets(URL), {"task": "a"})
    small = [f"{EPISODE}{i}/{name}.json" for i in range(3) for name in ("meta", "static")]
    assert fetched(faulty) == small
    assert [episode.static["task"] for episode in chosen] == ["a", "a"]
    assert len({episode.uid for episode in chosen}) == 2
    assert fetched(faulty) == []


def test_several_signals_come_at_once(raw: Path, faulty: Faulty) -> None:
    episode = load_all_datasets(URL)[0]
    wanted = adapted(episode, [], None)
    assert fetched(faulty) == [f"{EPISODE}0/static.json"]
    wanted.prefetch(["q", "image.wrist", "absent"])
    names = ["image.wrist.frames.parquet", "image.wrist.mp4", "q.parquet"]
    assert fetched(faulty) == [f"{EPISODE}0/{name}" for name in names]
    assert len(episode["q"]) == len(episode["image.wrist"]) == 4
    assert fetched(faulty) == []


def test_other_processes_fetch_for_themselves(raw: Path, faulty: Faulty, tmp_path: Path) -> None:
    dataset = split(load_all_datasets(URL), 0.5, 0)[0]
    signal = dataset[0]["image.wrist"]
    assert len(signal) == 4
    sent = pickle.dumps((dataset, signal))
    shutil.rmtree(tmp_path / "cache")
    faulty.requests.clear()
    arrived, video = pickle.loads(sent)
    assert fetched(faulty) == []
    assert faulty.count("GET", "list-type") == 0
    assert number_of(video[2][0]) == 2
    assert [e["task"] for e in arrived] == [e["task"] for e in dataset]


def test_files_that_were_given_up_are_fetched_again(raw: Path, tmp_path: Path) -> None:
    episode = load_all_datasets(URL)[0]
    q = episode["q"]
    assert len(q) == 4
    shutil.rmtree(tmp_path / "cache")
    np.testing.assert_array_equal(q.values()[:, 0], [0, 1, 2, 3])


def test_the_tree_is_searched_as_a_local_one(tmp_path: Path, upload: Upload) -> None:
    root = tmp_path / "raw"
    record(root / "a" / "deep", frames=1, task="3")
    record(root / "b", frames=1, task="2")
    (record(root / "b", frames=1) / ".unfinished").touch()
    dropped = record(root / "a", frames=1, task="gone")
    kept = record(root / "a", frames=1, task="1")
    record(root / ".hidden", frames=1, task="no")
    record(root / "000000000000" / "x", frames=1, task="no")
    note(root, {"op": "drop", "ep": uid(dropped)})
    note(kept, {"op": "set_static", "ep": uid(kept), "data": {"edited": True}})
    upload(root)
    for nested, tasks in ((True, ["1", "2", "3"]), (False, ["1", "2"])):
        remote = load_all_datasets(URL, nested=nested)
        assert [episode["task"] for episode in remote] == tasks
        local = load_all_datasets(root, nested=nested)
        assert [e.static for e in local] == [e.static for e in remote]
        assert remote[0]["edited"] is True
        assert remote.edits is not None
        assert local.edits is not None
        assert remote.edits.digest == local.edits.digest
        assert [d.uid for d in remote.edits.dropped] == [uid(dropped)]
    sources = [episode.meta["path"] for episode in load_all_datasets(URL)]
    assert sources[2] == f"{URL}/a/deep/000000000000/000000000000"


def test_what_was_published_is_read_by_its_manifest(
    tmp_path: Path, s3: Any, faulty: Faulty
) -> None:
    record(tmp_path / "raw", frames=2, task="t")
    storage.publish(tmp_path / "raw", URL)
    s3.put_object(Bucket="bucket", Key="raw/000000000000/000000000001/static.json", Body=b"{}")
    (episode,) = load_all_datasets(URL)
    assert episode["task"] == "t"
    assert len(episode["grip"]) == 2


def test_a_fault_of_the_network_is_survived_or_named(raw: Path, faulty: Faulty) -> None:
    faulty.status(503, path="list-type")
    dataset = load_all_datasets(URL)
    faulty.cut(100, path="q.parquet")
    assert len(dataset[0]["q"]) == 4
    faulty.refuse()
    with pytest.raises(
        StorageError, match=rf"{URL}/{EPISODE}1/q.parquet .*tried 5 times"
    ) as raised:
        dataset[1]["q"].values()
    assert "\n" not in str(raised.value)


def test_nothing_there(s3: Any, upload: Upload, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is nothing at s3://bucket/raw"):
        load_all_datasets(URL)
    s3.put_object(Bucket="bucket", Key="raw/readme.txt", Body=b"")
    with pytest.raises(DatasetError, match=f"no finished episodes under {URL}; expected"):
        load_all_datasets(URL)


def test_a_broken_file_is_named_by_its_address(raw: Path, s3: Any) -> None:
    s3.put_object(Bucket="bucket", Key=f"raw/{EPISODE}0/q.parquet", Body=b"PAR1")
    s3.delete_object(Bucket="bucket", Key=f"raw/{EPISODE}1/image.wrist.mp4")
    s3.put_object(Bucket="bucket", Key=f"raw/{EPISODE}2/static.json", Body=json.dumps([]).encode())
    dataset = load_all_datasets(URL)
    with pytest.raises(EpisodeError, match=rf"episode {URL}/{EPISODE}0: signal 'q': "):
        len(dataset[0]["q"])
    with pytest.raises(EpisodeError, match=rf"{EPISODE}1: .* file image.wrist.mp4 is missing"):
        dataset[1]["image.wrist"][0]
    with pytest.raises(EpisodeError, match=rf"{URL}/{EPISODE}2: static.json: .* found a list"):
        dataset[2]["task"]


def test_a_malicious_episode_costs_itself_alone(raw: Path, upload: Upload) -> None:
    bad = raw / f"{EPISODE}1"
    (bad / "static.json").write_text('{"task": "\\ud800"}')
    (bad / "edits.jsonl").write_text("[" * 100_000)
    note(raw, {"op": "drop", "ep": "of another dataset"})
    upload(raw)
    dataset = load_all_datasets(URL)
    assert len(dataset) == 3
    assert [dataset[i]["task"] for i in (0, 2)] == ["a", "a"]
    with pytest.raises(EpisodeError, match=rf"{URL}/{EPISODE}1: edits.jsonl: ") as refused:
        dataset[1]["task"]
    assert str(refused.value).isprintable()
    assert [len(part) for part in (where(dataset, {"task": "a"}), dataset)] == [3, 3]


def test_recordings_on_the_hub_are_fetched_whole(hub_server: HubServer, tmp_path: Path) -> None:
    for index in range(2):
        record(tmp_path / "raw", frames=3, number=index)
    found = (path for path in (tmp_path / "raw").rglob("*") if path.is_file())
    files = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in found}
    hub_server.put("dataset", "somebody/recordings", files)
    dataset = load_all_datasets("hf://datasets/somebody/recordings")
    assert [episode["number"] for episode in dataset] == [0, 1]
    assert number_of(dataset[1]["image.wrist"][2][0]) == 2
