import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from getiaction.data import LeRobotDataModule, remote
from getiaction.data.remote import INDEX, mirror, mirror_directory
from getiaction.errors import GetiactionError
from getiaction.policies.lerobot import policy_config
from getiaction.roots import local_root

URL = "s3://bucket/datasets/small"
ACT = policy_config("act", {"chunk_size": 5, "n_action_steps": 5})

# moto's server and botocore speak of times and sockets in ways that Python has come to dislike.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:moto"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    environment = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.01)
    client = boto3.client("s3")
    client.create_bucket(Bucket="bucket")
    yield client
    for listed in client.list_objects_v2(Bucket="bucket").get("Contents", []):
        client.delete_object(Bucket="bucket", Key=listed["Key"])
    client.delete_bucket(Bucket="bucket")


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note down the names of the files that are fetched."""
    names: list[str] = []
    fetch_one = remote._fetch_one

    def listen(filesystem: Any, url: str, file: Any, directory: Path) -> None:
        names.append(file.name)
        fetch_one(filesystem, url, file, directory)

    monkeypatch.setattr(remote, "_fetch_one", listen)
    return names


def put(s3: Any, name: str, content: bytes) -> None:
    s3.put_object(Bucket="bucket", Key=f"datasets/small/{name}", Body=content)


def upload(s3: Any, root: Path) -> list[str]:
    names = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    for name in names:
        put(s3, name, (root / name).read_bytes())
    return sorted(names)


def held(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.name != INDEX
    }


def test_a_dataset_in_s3_trains(s3: Any, state_root: Path, fetched: list[str]) -> None:
    names = upload(s3, state_root)
    s3.put_object(Bucket="bucket", Key="datasets/small-too/other", Body=b"another dataset")
    data = LeRobotDataModule(root=URL, train_batch_size=34)
    data.prepare(ACT)
    (batch,) = data.train_dataloader()
    assert sorted(batch["index"].tolist()) == list(range(34))
    assert data.repo_id == "small"
    assert sorted(fetched) == names
    assert held(mirror_directory(URL)) == held(state_root)
    # A second time nothing is fetched.
    fetched.clear()
    assert LeRobotDataModule(root=URL).root == mirror_directory(URL)
    assert local_root(Path(URL)) == mirror_directory(URL)
    assert fetched == []


def test_what_changed_is_fetched_anew(s3: Any, fetched: list[str]) -> None:
    put(s3, "a", b"first")
    put(s3, "deep/b", b"stays")
    put(s3, "c", b"goes")
    directory = mirror(URL)
    fetched.clear()
    put(s3, "a", b"other")  # of the same size
    s3.delete_object(Bucket="bucket", Key="datasets/small/c")
    mirror(f"{URL}/")
    assert fetched == ["a"]
    assert held(directory) == {"a": b"other", "deep/b": b"stays"}
    # A file that was cut short, or that vanished, is not taken for whole.
    (directory / "a").write_bytes(b"oth")
    (directory / "deep/b").unlink()
    mirror(URL)
    assert held(directory) == {"a": b"other", "deep/b": b"stays"}


def test_several_parts_have_no_digest(s3: Any) -> None:
    upload = s3.create_multipart_upload(Bucket="bucket", Key="datasets/small/big")["UploadId"]
    where = {"Bucket": "bucket", "Key": "datasets/small/big", "UploadId": upload}
    part = s3.upload_part(**where, PartNumber=1, Body=b"whole")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    s3.complete_multipart_upload(**where, MultipartUpload=parts)
    assert held(mirror(URL)) == {"big": b"whole"}


def test_a_missing_prefix_is_refused(s3: Any) -> None:
    put(s3, "a", b"")
    for url in ("s3://bucket/datasets/smal", "s3://nowhere/x", "s3://bucket/datasets/small/a/b"):
        with pytest.raises(GetiactionError, match=rf"{url}\b.*(no objects have|does not exist)"):
            mirror(url)
    with pytest.raises(GetiactionError, match="s3:// names no bucket"):
        mirror("s3://")
    assert not mirror_directory("s3://bucket/datasets/smal").exists()


def test_something_else_is_refused_before_it_is_fetched(s3: Any, fetched: list[str]) -> None:
    put(s3, "a", b"no dataset")
    with pytest.raises(GetiactionError, match=r"small is not a LeRobot dataset: it has no meta/in"):
        LeRobotDataModule(root=URL)
    assert fetched == []


def corrupted(monkeypatch: pytest.MonkeyPatch, content: bytes, times: int) -> list[str]:
    """Let the first ``times`` files arrive as ``content``."""
    from s3fs import S3FileSystem

    get_file = S3FileSystem.get_file
    calls: list[str] = []

    def get(self: Any, remote_path: str, local_path: str) -> None:
        calls.append(remote_path)
        get_file(self, remote_path, local_path)
        if len(calls) <= times:
            Path(local_path).write_bytes(content)

    monkeypatch.setattr(S3FileSystem, "get_file", get)
    return calls


@pytest.mark.parametrize("content", [b"rig", b"wrong"], ids=["short", "other"])
def test_what_arrives_wrong_is_fetched_again(
    s3: Any, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    put(s3, "a", b"right")
    calls = corrupted(monkeypatch, content, times=2)
    assert held(mirror(URL)) == {"a": b"right"}
    assert len(calls) == 3


def test_what_always_arrives_wrong_is_refused(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put(s3, "a", b"right")
    corrupted(monkeypatch, b"wrong", times=99)
    with pytest.raises(
        GetiactionError, match="small/a cannot be fetched, tried 4 times: what arrived does not"
    ):
        mirror(URL)
    assert not (mirror_directory(URL) / "a").exists()


CHILD = """
import os
import sys
from getiaction.data import remote
fetch = remote._fetch_one
def listen(filesystem, url, file, directory):
    if file.name == "b":
        (directory / (remote.UNFINISHED + "b")).write_bytes(b"hal")
        os._exit(9)
    fetch(filesystem, url, file, directory)
remote.PARALLEL = 1
remote._fetch_one = listen
remote.mirror(sys.argv[1])
"""


def test_a_killed_download_is_not_taken_for_whole(s3: Any, fetched: list[str]) -> None:
    put(s3, "a", b"first")
    put(s3, "b", b"second")
    killed = subprocess.run([sys.executable, "-c", CHILD, URL])
    assert killed.returncode == 9
    directory = mirror_directory(URL)
    assert held(directory) == {"a": b"first", f"{remote.UNFINISHED}b": b"hal"}
    mirror(URL)
    assert held(directory) == {"a": b"first", "b": b"second"}
    assert fetched == ["b"]


def test_a_line_cut_short_in_the_index_costs_one_file(s3: Any, fetched: list[str]) -> None:
    put(s3, "a", b"first")
    put(s3, "b", b"second")
    index = mirror(URL) / INDEX
    *lines, last = (line for line in index.read_text().splitlines() if line)
    cut = json.loads(last)["name"]
    index.write_text("\n".join([*lines, last[:20]]))
    fetched.clear()
    mirror(URL)
    assert fetched == [cut]
    fetched.clear()
    mirror(URL)
    assert fetched == []


def test_a_server_that_is_away_is_waited_for(
    s3: Any, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(GetiactionError, match="small cannot be listed, tried 4 times: Could not"):
        mirror(URL)


def test_processes_take_turns(s3: Any, fetched: list[str]) -> None:
    for name in "abc":
        put(s3, name, name.encode())
    errors: list[BaseException] = []

    def one() -> None:
        try:
            mirror(URL)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(fetched) == ["a", "b", "c"]


def test_names_that_lead_elsewhere_are_refused(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"bucket/datasets/small/../../x": {"size": 1, "ETag": "e"}}
    from s3fs import S3FileSystem

    monkeypatch.setattr(S3FileSystem, "find", lambda *args, **kwargs: found)
    with pytest.raises(GetiactionError, match=r"an object '../../x', which is no path below it"):
        mirror(URL)


def test_progress_is_told_in_lines(s3: Any, capsys: pytest.CaptureFixture[str]) -> None:
    put(s3, "a", bytes(1 << 19))
    directory = mirror(URL)
    assert capsys.readouterr().err.splitlines() == [
        f"fetching 1 files, 0.5 MiB, from {URL}",
        f"fetched {URL} into {directory}",
    ]


def test_the_package_for_s3_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(GetiactionError, match=r"need the package s3fs; .*positronic-lightning\[s3"):
        mirror(URL)
