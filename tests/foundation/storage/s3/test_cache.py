import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from foundation.errors import StorageError
from foundation.storage.s3 import fetch
from foundation.storage.s3.cache import LOCK, cache_home, cache_size
from tests.foundation.storage.s3.files import child, held
from tests.waiting import line_of

MIB = 1 << 20
CHILD = """
import sys
from foundation.storage.s3 import fetch
for url in sys.argv[2:]:
    print(fetch(url), flush=True)
if sys.argv[1] == "stay":
    sys.stdin.read()
"""


@pytest.fixture
def urls(s3: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Four directories of 1 MiB, of which three fit into the cache."""
    for name in "abcd":
        s3.put_object(Bucket="bucket", Key=f"{name}/file", Body=os.urandom(MIB))
    monkeypatch.setenv("POSITRONIC_CACHE_SIZE", "3.5MiB")
    return [f"s3://bucket/{name}" for name in "abcd"]


def kept() -> set[str]:
    return {path.parent.name for path in cache_home().glob("*/*/*/file")}


def fetched(*urls: str) -> None:
    """Fetch in a process that is gone afterwards."""
    with child(CHILD, "go", *urls) as process:
        assert process.wait(120) == 0, process.stderr.read() if process.stderr else ""


def age(name: str) -> None:
    """Let what was fetched lie unused for a day."""
    (lock,) = [path.parent.parent / LOCK for path in cache_home().glob(f"*/*/{name}/file")]
    day = lock.stat().st_mtime - 86400
    os.utime(lock, (day, day))


def test_the_longest_unused_is_given_up(urls: list[str]) -> None:
    fetched(*urls[:3])
    age("b")
    fetch(urls[3])
    assert kept() == {"a", "c", "d"}


def test_what_is_used_is_kept(urls: list[str]) -> None:
    (a, b, c, d) = urls
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, "stay", a, b],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        used = [Path(line_of(process.stdout, "a fetched directory").strip()) for _ in range(2)]
        age("a")
        age("b")
        fetched(c)
        fetch(d)
        assert kept() == {"a", "b", "d"}
        with pytest.raises(StorageError, match=r"c needs 0\.00 GiB.*set POSITRONIC_CACHE_SIZE"):
            fetch(c)
        assert all(held(directory) for directory in used)
        process.communicate(timeout=60)
    fetch(c)
    assert kept() in ({"b", "c", "d"}, {"a", "c", "d"})


def test_nothing_outside_the_cache_is_removed(urls: list[str], tmp_path: Path) -> None:
    beside = cache_home().parent / "other" / "file"
    stranger = cache_home() / "notes" / "file"
    for path in (beside, stranger):
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(4 * MIB))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"precious")
    fetched(urls[0])
    (place,) = cache_home().glob(f"*/*/{LOCK}")
    (place.parent / "link").symlink_to(outside)
    fetched(*urls[1:])
    assert kept() == {"b", "c", "d"}
    assert all(path.is_file() for path in (beside, stranger, outside / "file"))


def test_older_versions_share_what_is_the_same(s3: Any, urls: list[str]) -> None:
    old = fetch(urls[0])
    s3.put_object(Bucket="bucket", Key="a/second", Body=b"second")
    new = fetch(urls[0])
    assert old != new
    assert (old / "file").samefile(new / "file")


def test_an_old_version_goes_when_nobody_uses_it(s3: Any, urls: list[str]) -> None:
    fetched(urls[0])
    s3.put_object(Bucket="bucket", Key="a/file", Body=b"new")
    new = fetch(urls[0])
    assert [path.parent for path in cache_home().glob("*/*/*/file")] == [new]


def test_the_size_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"": 50 << 30, "1024": 1024, "2KiB": 2048, "1.5G": 3 << 29, "1 TB": 1 << 40}
    for text, size in sizes.items():
        monkeypatch.setenv("POSITRONIC_CACHE_SIZE", text)
        assert cache_size() == size
    monkeypatch.setenv("POSITRONIC_CACHE_SIZE", "much")
    with pytest.raises(StorageError, match="POSITRONIC_CACHE_SIZE=much is not a size; expected"):
        cache_size()
