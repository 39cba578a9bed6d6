"""The rule for paths and what every command does with it, on the disk and in S3 alike."""

from pathlib import Path
from typing import Any

import pytest

from foundation import storage
from foundation.errors import StorageError
from tests.foundation.storage.s3.files import held, made
from tests.s3 import Faulty

FILES = {"a.txt": b"first", "deep/b.bin": bytes(range(256)) * 40, "empty": b""}


@pytest.fixture(params=["local", "s3"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A directory, or a bucket, in which nothing is yet."""
    if request.param == "local":
        return str(tmp_path / "place")
    request.getfixturevalue("s3")
    return "s3://bucket"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return made(tmp_path / "source", FILES)


def test_what_is_published_is_found_again(base: str, source: Path) -> None:
    uri = storage.join(base, "runs", "one")
    assert not storage.exists(uri)
    assert not storage.is_whole(uri)
    assert storage.listing(uri) == {}
    assert storage.children(uri) == []
    storage.publish(source, uri)
    assert storage.exists(uri)
    assert storage.is_whole(uri)
    assert {name: entry.size for name, entry in storage.listing(uri).items()} == {
        name: len(content) for name, content in FILES.items()
    }
    assert storage.children(base) == ["runs"]
    assert storage.children(storage.join(base, "runs")) == ["one"]
    assert storage.children(uri) == ["a.txt", "deep", "empty"]
    assert held(storage.fetch(uri)) == FILES
    assert storage.read_bytes(storage.join(uri, "a.txt")) == b"first"
    path = storage.fetch_file(storage.join(uri, "deep/b.bin"))
    assert (path.name, path.read_bytes()) == ("b.bin", FILES["deep/b.bin"])
    storage.publish(source, uri)  # again: nothing to do


def test_something_else_is_replaced_only_when_asked(
    base: str, source: Path, tmp_path: Path
) -> None:
    uri = storage.join(base, "one")
    storage.publish(source, uri)
    other = made(tmp_path / "other", {"a.txt": b"other", "new": b"n"})
    with pytest.raises(StorageError, match=r"one holds something else; .* ask to replace it"):
        storage.publish(other, uri)
    assert held(storage.fetch(uri)) == FILES
    storage.publish(other, uri, replace=True)
    assert held(storage.fetch(uri)) == {"a.txt": b"other", "new": b"n"}


def test_only_what_is_named_is_removed(base: str, source: Path) -> None:
    uri = storage.join(base, "one")
    storage.publish(source, uri)
    with pytest.raises(StorageError, match=r"one has no nothing; nothing was removed"):
        storage.remove(uri, ["a.txt", "nothing"])
    storage.remove(uri, ["a.txt", "empty"])
    assert held(storage.fetch(uri)) == {"deep/b.bin": FILES["deep/b.bin"]}
    storage.remove(uri, ["deep/b.bin"])
    assert storage.listing(uri) == {}


def test_a_name_is_claimed_once(base: str) -> None:
    uri = storage.join(base, "runs/one/claim")
    storage.write_bytes(uri, b"mine", if_absent=True)
    with pytest.raises(StorageError, match="claim exists already"):
        storage.write_bytes(uri, b"theirs", if_absent=True)
    assert storage.read_bytes(uri) == b"mine"
    storage.write_bytes(uri, b"ours")
    assert storage.read_bytes(uri) == b"ours"
    assert storage.children(storage.join(base, "runs/one")) == ["claim"]


def test_a_claim_whose_answer_was_lost_is_ours(s3: Any, faulty: Faulty) -> None:
    faulty.lose(method="PUT", path="claim")
    storage.write_bytes("s3://bucket/claim", b"same", if_absent=True)
    assert faulty.count("PUT", "claim") == 2
    with pytest.raises(StorageError, match="claim exists already"):
        storage.write_bytes("s3://bucket/claim", b"same", if_absent=True)


def test_what_is_not_there_is_refused(base: str, source: Path) -> None:
    uri = storage.join(base, "nothing")
    with pytest.raises(StorageError, match=r"there is (nothing at|no directory) .*nothing"):
        storage.fetch(uri)
    for read in (storage.fetch_file, storage.read_bytes):
        with pytest.raises(StorageError, match=r"there is no file .*nothing"):
            read(uri)
    storage.publish(source, uri)
    with pytest.raises(StorageError, match=r"nothing has no meta/info\.json"):
        storage.fetch(uri, required="meta/info.json")


def test_only_what_is_wanted_is_fetched(s3: Any, source: Path) -> None:
    storage.publish(source, "s3://bucket/one")
    fetched = storage.fetch("s3://bucket/one", only=lambda name: name.startswith("deep/"))
    assert held(fetched) == {"deep/b.bin": FILES["deep/b.bin"]}
    assert held(storage.fetch("s3://bucket/one")) == FILES


def test_the_rule_for_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert storage.local("~/data") == storage.local("data") == tmp_path / "data"
    assert storage.join("~", "a", "b") == str(tmp_path / "a/b")
    assert storage.join("s3://PUBLIC@bucket/a/", "b/", "c") == "s3://PUBLIC@bucket/a/b/c"
    assert storage.join(Path("s3://bucket/a")) == "s3://bucket/a"
    assert [storage.is_remote(path) for path in ("s3://a", Path("s3://a/b"), "/s3", "s3")] == [
        True,
        True,
        False,
        False,
    ]
    for path, expected in {
        "s3://bucket/a": "expected a local path",
        "gs://bucket/a": "expected a local path or s3://bucket/key",
        "": "a path is empty; expected a directory, or '.' for this one",
        " ": "a path is empty",
    }.items():
        with pytest.raises(StorageError, match=expected):
            storage.local(path)
    for path in ("s3://", "s3://@bucket", "s3://bucket/a/../b"):
        with pytest.raises(StorageError, match=r"names no bucket|is not a valid address"):
            storage.fetch(path)
