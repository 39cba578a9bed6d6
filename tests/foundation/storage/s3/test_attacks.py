"""Buckets of people who mean harm: one line, and nothing written, removed or read elsewhere."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from foundation.documents import Reader
from foundation.errors import FoundationError, StorageError
from foundation.storage.s3 import Location, fetch, list_children, publish, remove, take_snapshot
from foundation.storage.s3 import manifest as published
from foundation.storage.s3.cache import LOCK, cache_home
from foundation.storage.s3.location import clash
from foundation.storage.s3.manifest import Manifest
from foundation.storage.s3.mirror import INDEX, UNFINISHED
from tests.foundation.storage.s3.files import URL, held, made, objects, put
from tests.mutations import mutations

PAYLOAD = b"ssh-ed25519 AAAA attacker"
SHA256 = "7c3dbd4a0d1e4ebe0c7be1f31a1e2dc9f1a1a9ad5d1a1dd4a0a3aeb3e9b5f0f1"
KEY = f".publishing/{'0' * 16}/{SHA256}"
WHERE = Location.parse(URL)
ENTRY = {"size": len(PAYLOAD), "sha256": SHA256, "key": "payload"}
# "~" stands for a folder of the reader's, which is not that of the cache.
NAMES = [
    "~/.ssh/authorized_keys",
    "/~/.ssh/authorized_keys",
    "../x",
    "../../../../../home/.bashrc",
    "pretrained_model/../../../../../../home/.bashrc",
    "pretrained_model/~/.bashrc",
    "checkpoints/000010/pretrained_model/../../../../x",
    f"../{INDEX}",
    f"../{LOCK}",
    f"../{UNFINISHED}/a",
    "../../.lock",
    "a/..",
    "a/./b",
    "./a",
    ".",
    "..",
    "",
    "/",
    "a/",
    "a//b",
    "..\\x",
    "C:\\x",
    "a\x00b",
    "a\nb",
    "\x1b]0;owned\x07",
    "\ud800",
    "\u202egnp.exe",
    "a" * 300,
    "a/" * 3000 + "a",
    ".published.json",
    "a/.published.json",
    f"{KEY}",
    "a/.publishing/b",
]
CHANGES: list[dict[str, Any]] = [
    {"key": "../../secret"},
    {"key": "/secret"},
    {"key": "precious"},
    {"key": "precious/deep"},
    {"key": f".publishing/../{SHA256}"},
    {"key": f"{KEY}/../../../precious"},
    {"key": f".publishing/{'0' * 16}/{SHA256}x"},
    {"key": 5},
    {"key": ["a"]},
    {"size": -1},
    {"size": 2**63},
    {"size": 10**400},
    {"size": 1.5},
    {"size": True},
    {"size": "4"},
    {"size": None},
    {"sha256": "../../../../../../etc/passwd"},
    {"sha256": "A" * 64},
    {"sha256": f"{'0' * 64}\n"},
    {"sha256": ""},
    {"sha256": None},
]
DOCUMENTS: list[Any] = [
    {"format": 2, "whole": True, "files": {}},
    {"format": "1", "whole": True, "files": {}},
    {"format": True, "whole": True, "files": {}},
    {"format": 1, "whole": 1, "files": {}},
    {"format": 1, "whole": "yes", "files": {}},
    {"format": 1, "whole": True, "files": []},
    {"format": 1, "whole": True, "files": {"a": None}},
    {"format": 1, "whole": True, "files": {"a": []}},
    {"format": 1, "whole": True},
    {"whole": True, "files": {}},
    [],
    "manifest",
    None,
]
TEXTS = [
    b"",
    b"{",
    b"\xff\xfe",
    b"[" * 100_000 + b"]" * 100_000,
    b'{"files":' * 100_000 + b"1" + b"}" * 100_000,
    b'{"format": NaN, "whole": true, "files": {}}',
    b'{"format": 1, "whole": true, "files": {"a": {"size": ' + b"9" * 5000 + b"}}}",
]


def written(document: Any) -> bytes:
    return document if isinstance(document, bytes) else json.dumps(document).encode()


def naming(name: str, home: Path) -> dict[str, Any]:
    name = name.replace("~", str(home)) if name.startswith(("~", "/~")) else name
    name = name.replace("/~", f"/{home}") if "/~" in name else name
    entry = {"size": len(PAYLOAD), "sha256": SHA256}
    return {"format": 1, "whole": True, "files": {"good": entry, name: entry}}


@pytest.fixture
def around(s3: Any, tmp_path: Path) -> Path:
    """A home, beside which the cache lies, and a bucket with what is worth stealing or removing."""
    home = tmp_path / "home"
    made(home, {".bashrc": b"mine", ".ssh/authorized_keys": b"mine", "x": b"mine"})
    fetch_something(s3)
    for name in ("good", "payload", "precious", "precious/deep"):
        put(s3, name, PAYLOAD)
    s3.put_object(Bucket="bucket", Key="secret", Body=b"secret")
    return home


def fetch_something(s3: Any) -> None:
    s3.put_object(Bucket="bucket", Key="other/a", Body=b"of another dataset")
    fetch("s3://bucket/other")


def state(home: Path) -> dict[str, bytes]:
    """Every file beside and below the cache, but the locks of what was tried."""
    return {
        name: content
        for name, content in held(home.parent).items()
        if not name.endswith((".lock", LOCK))
    }


def refused(attempt: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(StorageError) as error:
        attempt(*arguments, **options)
    (line,) = str(error.value).splitlines()
    assert line.isprintable()
    assert len(line) < 1000
    return line


def test_the_attack_works_where_the_name_is_plain(s3: Any, around: Path) -> None:
    import hashlib

    document = naming("pretrained_model/config.json", around)
    for name, entry in document["files"].items():
        entry["sha256"] = hashlib.sha256(PAYLOAD).hexdigest()
        put(s3, name, PAYLOAD)
    put(s3, ".published.json", written(document))
    assert set(held(fetch(URL))) == {"good", "pretrained_model/config.json"}


@pytest.mark.parametrize("name", NAMES)
def test_names_that_lead_elsewhere_are_refused(name: str, s3: Any, around: Path) -> None:
    document = naming(name, around)
    put(s3, ".published.json", written(document))
    before, there = state(around), objects(s3)
    line = refused(fetch, URL)
    told = "holds text that is not Unicode" if name == "\ud800" else ": field 'files."
    assert f".published.json{told if told[0] == ':' else f' {told}'}" in line
    assert "remove that object and publish again" in line
    for other in (f"{URL}/pretrained_model", f"{URL}/a"):  # by the manifest above it
        refused(fetch, other)
    with contextlib.suppress(StorageError):
        fetch("s3://bucket/other")
    assert state(around) == before
    assert objects(s3) == there


@pytest.mark.parametrize("change", CHANGES, ids=[json.dumps(c)[:40] for c in CHANGES])
def test_entries_that_do_not_fit_are_refused(
    change: dict[str, Any], s3: Any, around: Path, tmp_path: Path
) -> None:
    entry = {"size": len(PAYLOAD), "sha256": SHA256} | change
    document = {"format": 1, "whole": True, "files": {"good": entry}}
    put(s3, ".published.json", written(document))
    mine = made(tmp_path / "mine", {"good": b"better"})
    before, there = state(around), objects(s3)
    (field,) = change
    assert f".published.json: field 'files.good.{field}" in refused(fetch, URL)
    # Whoever may write there neither copies nor removes anything by it.
    refused(publish, mine, URL, replace=True)
    refused(remove, URL, ["good"])
    assert state(around) == before
    assert objects(s3) == there


@pytest.mark.parametrize("document", [*DOCUMENTS, *TEXTS], ids=lambda it: ascii(written(it)[:40]))
def test_what_is_no_manifest_is_refused(document: Any, s3: Any, around: Path) -> None:
    put(s3, ".published.json", written(document))
    before = state(around)
    assert refused(fetch, URL).startswith(f"{URL}/.published.json")
    assert state(around) == before


def test_a_manifest_without_end_is_not_read(
    s3: Any, around: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(s3, ".published.json", b" " * 5000)
    monkeypatch.setattr(published, "READER", Reader(error=StorageError, size=4999))
    assert "/.published.json has 5000 bytes; expected at most 4999" in refused(fetch, URL)


def test_a_file_that_is_a_folder_too_is_refused(s3: Any, around: Path) -> None:
    entry = {"size": 1, "sha256": SHA256}
    for names in (["a", "a/b"], ["a/b/c/d", "a/b"], ["a", "a.b", "a/b"]):
        document = {"format": 1, "whole": True, "files": dict.fromkeys(names, entry)}
        put(s3, ".published.json", written(document))
        assert "which no directory holds" in refused(fetch, URL)
    assert clash(["a/b", "a.b", "ab", "a/c"]) is None


def test_files_and_folders_of_one_name_that_nobody_published(s3: Any) -> None:
    for name in ("a", "a/b", "c", "d"):
        put(s3, name, name.encode())
    assert "has both a and a/b, which no directory holds" in refused(fetch, URL)
    # One of them alone can be had, then not the other.
    for first, second in (("c", "d"), ("a", "a/b"), ("a/b", "a")):
        put(s3, "d", os.urandom(4))  # another version
        directory = fetch(URL, only=first.__eq__)
        assert (directory / first).read_bytes() == first.encode()
        if first != "c":
            line = refused(fetch, URL, only=second.__eq__)
            assert "and a file where a folder would be; remove one of them" in line


LISTED = [
    "../x",
    "../../x",
    "a/../../x",
    "a//b",
    "/etc/passwd",
    "a\\b",
    "a/./b",
    "a\x07b",
    "\x1b[2J",
]


@pytest.mark.parametrize("key", LISTED)
def test_keys_that_lead_elsewhere_are_refused(key: str, s3: Any, around: Path) -> None:
    put(s3, key, PAYLOAD)
    before = state(around)
    for attempt in (lambda: fetch(URL), lambda: take_snapshot(WHERE)):
        assert "which is not a path below it; remove that object" in refused(attempt)
    assert state(around) == before


@pytest.mark.parametrize("key", ["../x", "./x", "a\\b/x", "\x1b[2J/x", "..", "a\x07b"])
def test_children_are_names(key: str, s3: Any) -> None:
    put(s3, "000010/model", b"")
    put(s3, key, PAYLOAD)
    assert "which is not a path below it" in refused(list_children, WHERE)


def test_addresses_stay_below(s3: Any) -> None:
    assert str(WHERE / "a/b") == f"{URL}/a/b"
    assert WHERE / "" == WHERE
    for name in ("..", "../x", "a/../..", "a//b", "a\x1bb"):
        assert "expected a plain path such as 'a/b'" in refused(lambda n=name: WHERE / n)
    for name in (INDEX, LOCK, UNFINISHED):
        s3.put_object(Bucket="bucket", Key=f"x/{name}/a", Body=b"")
        assert "the cache has files of its own" in refused(fetch, f"s3://bucket/x/{name}")


@pytest.mark.parametrize("planted", [INDEX, UNFINISHED, "small", "small/deep"])
def test_links_in_the_cache_are_not_followed(
    planted: str, s3: Any, around: Path, tmp_path: Path
) -> None:
    for name in ("good", "payload", "precious", "precious/deep"):
        s3.delete_object(Bucket="bucket", Key=f"datasets/small/{name}")
    put(s3, "deep/a", PAYLOAD)
    put(s3, "b", PAYLOAD)
    version = fetch(URL, only="b".__eq__).parent
    outside = made(tmp_path / "outside", {"file": b"mine"})
    path = version / planted
    if path.is_dir():
        path.rename(version / "moved")
    path.unlink(missing_ok=True)
    path.symlink_to(outside / "file" if planted == INDEX else outside)
    refused_or_os_error(fetch, URL)
    assert held(outside) == {"file": b"mine"}


def test_an_unfinished_file_that_is_a_link_is_not_written_through(
    s3: Any, around: Path, tmp_path: Path
) -> None:
    for name in ("precious", "precious/deep"):
        s3.delete_object(Bucket="bucket", Key=f"datasets/small/{name}")
    version = fetch(URL, only="good".__eq__).parent
    (version / UNFINISHED / "payload").symlink_to(around / ".bashrc")
    assert "it is a symbolic link; expected a file that this program keeps" in refused(fetch, URL)
    assert (around / ".bashrc").read_bytes() == b"mine"


def refused_or_os_error(attempt: Any, *arguments: Any) -> None:
    """The command line tells either in one line."""
    with pytest.raises((FoundationError, OSError)) as error:
        attempt(*arguments)
    assert len(str(error.value).splitlines()) == 1


def test_an_index_of_somebody_else_costs_nothing(s3: Any, around: Path) -> None:
    for name in ("precious", "precious/deep"):
        s3.delete_object(Bucket="bucket", Key=f"datasets/small/{name}")
    directory = fetch(URL)
    whole = held(directory)
    index = directory.parent / INDEX
    line = json.loads(index.read_text().split("\n")[1])
    lines = [
        b"[" * 100_000,
        b"\xff\xfe",
        b"null",
        b"[1, 2]",
        b'["good", null]',
        b'["good", {"identity": 5}]',
        b'["../../x", {"identity": "a", "size": 1, "mtime_ns": 1}]',
        json.dumps([line[0], line[1] | {"size": -5, "mtime_ns": 10**400}]).encode(),
        *mutations(line, 2000),
    ]
    before = state(around)
    index.write_bytes(b"\n".join(lines))
    assert held(fetch(URL)) == whole
    index.unlink()
    os.mkfifo(index)
    refused_or_os_error(fetch, URL)
    after = {name: content for name, content in state(around).items() if INDEX not in name}
    assert after == {name: content for name, content in before.items() if INDEX not in name}


def test_mutations_of_a_manifest_end_in_its_reader() -> None:
    whole = {
        "format": 1,
        "whole": True,
        "files": {
            "meta/info.json": {"size": 12, "sha256": SHA256},
            "data/file-000.parquet": {"size": 1 << 40, "sha256": SHA256, "key": KEY},
            "a/b.mp4": {"size": 0, "sha256": SHA256},
        },
    }
    read, lines = 0, list[str]()
    for content in mutations(whole, 10_000):
        try:
            manifest = Manifest.from_bytes(content, "etag", WHERE)
        except StorageError as error:
            lines.append(str(error))
            continue
        read += 1
        for name, entry in manifest.files.items():
            assert str(cache_home() / name) == os.path.normpath(cache_home() / name)
            assert entry.key is None or entry.key.startswith(".publishing/")
    assert all(line.isprintable() for line in lines)
    assert 0 < read < 9_000
