import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from foundation.errors import NotFound, StorageError
from foundation.storage.s3 import fetch, fetch_file
from foundation.storage.s3.cache import unpin
from foundation.storage.s3.mirror import INDEX
from tests.foundation.storage.s3.files import URL, child, held, put
from tests.s3 import Faulty
from tests.waiting import join


def gets(faulty: Faulty) -> list[str]:
    """The names of the files that were fetched since last asked."""
    names = [
        path.removeprefix("/bucket/datasets/small/").partition("?")[0]
        for method, path in faulty.requests
        if method == "GET" and path.startswith("/bucket/datasets/small/")
    ]
    faulty.requests.clear()
    return sorted(name for name in names if name != ".published.json")


def test_what_changed_is_fetched_anew(s3: Any, faulty: Faulty) -> None:
    put(s3, "a", b"first")
    put(s3, "deep/b", b"stays")
    put(s3, "c", b"goes")
    old = fetch(URL)
    assert gets(faulty) == ["a", "c", "deep/b"]
    assert fetch(f"{URL}/") == old
    assert gets(faulty) == []
    put(s3, "a", b"other")  # of the same size
    s3.delete_object(Bucket="bucket", Key="datasets/small/c")
    new = fetch(URL)
    assert gets(faulty) == ["a"]
    assert held(new) == {"a": b"other", "deep/b": b"stays"}
    # What this process has been given stays as it was.
    assert held(old) == {"a": b"first", "deep/b": b"stays", "c": b"goes"}
    assert new.name == old.name == "small"
    # A file that was changed, or that vanished, is not taken for whole.
    (new / "a").write_bytes(b"oth")
    (new / "deep/b").unlink()
    assert held(fetch(URL)) == {"a": b"other", "deep/b": b"stays"}


def test_neighbours_are_left_out(s3: Any) -> None:
    put(s3, "a", b"a")
    s3.put_object(Bucket="bucket", Key="datasets/small-too/b", Body=b"another")
    s3.put_object(Bucket="bucket", Key="datasets/small/marked/", Body=b"")
    assert held(fetch(URL)) == {"a": b"a"}


def test_a_file_alone_is_fetched_once(s3: Any, faulty: Faulty) -> None:
    put(s3, "deep/b.bin", b"content")
    path = fetch_file(f"{URL}/deep/b.bin")
    assert (path.name, path.read_bytes()) == ("b.bin", b"content")
    assert fetch_file(f"{URL}/deep/b.bin") == path
    assert gets(faulty) == ["deep/b.bin"]
    with pytest.raises(NotFound, match=r"there is no file s3://bucket/datasets/small/deep/c"):
        fetch_file(f"{URL}/deep/c")


def test_a_missing_prefix_is_refused(s3: Any) -> None:
    put(s3, "a", b"")
    for url in ("s3://bucket/datasets/smal", "s3://nowhere/x", "s3://bucket/datasets/small/a/b"):
        with pytest.raises(NotFound, match=rf"{url}\b.*(no objects have|does not exist)"):
            fetch(url)
    for url in ("s3://", "s3:///a"):
        with pytest.raises(StorageError, match=f"{url} names no bucket"):
            fetch(url)


def test_names_that_lead_elsewhere_are_refused(s3: Any) -> None:
    put(s3, "../../x", b"escaped")
    with pytest.raises(StorageError, match=r"an object '../../x', which is not a path below it"):
        fetch(URL)


CHILD = "import sys; from foundation.storage.s3 import fetch; print(fetch(sys.argv[1]))"


def test_a_killed_download_is_gone_on_with(s3: Any, faulty: Faulty) -> None:
    big = os.urandom(6 << 20)
    put(s3, "a", b"first")
    put(s3, "big", big)
    faulty.slow(30, path="/big", times=1)
    process = child(CHILD, URL)
    with process:
        for path in _appears(Path(os.environ["XDG_CACHE_HOME"]), "**/.unfinished/big", 2 << 20):
            process.kill()
            arrived = path.stat().st_size
    assert arrived < len(big)
    assert held(fetch(URL)) == {"a": b"first", "big": big}
    # Of the big file only the rest.
    assert [h["Range"] for h in faulty.headers if "Range" in h] == [f"bytes={arrived}-"]


def _appears(where: Path, pattern: str, size: int) -> list[Path]:
    for _ in range(2000):
        found = [path for path in where.glob(pattern) if path.stat().st_size >= size]
        if found:
            return found
        threading.Event().wait(0.01)
    raise AssertionError(f"no {pattern} below {where}")


def test_a_line_cut_short_in_the_index_costs_one_file(s3: Any, faulty: Faulty) -> None:
    put(s3, "a", b"first")
    put(s3, "b", b"second")
    index = fetch(URL).parent / INDEX
    *lines, last = (line for line in index.read_text().splitlines() if line)
    index.write_text("\n".join([*lines, last[:20]]))
    gets(faulty)
    fetch(URL)
    assert gets(faulty) == [last.split('"')[1]]
    fetch(URL)
    assert gets(faulty) == []


def test_processes_take_turns(s3: Any, faulty: Faulty) -> None:
    for name in "abc":
        put(s3, name, name.encode())
    errors: list[BaseException] = []

    def one() -> None:
        try:
            fetch(URL)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    join(threads, "three fetches at once")
    assert errors == []
    assert gets(faulty) == ["a", "b", "c"]


def test_progress_is_told_in_lines(s3: Any, capsys: pytest.CaptureFixture[str]) -> None:
    put(s3, "a", bytes(3 << 19))
    fetch(URL)
    begun, ended = capsys.readouterr().err.splitlines()
    assert begun == f"fetching {URL}: 1 files, 1.5 MiB"
    assert ended.startswith(f"fetching {URL}: done in ")


def test_a_file_changed_with_its_size_and_time_kept_is_not_handed_out(
    s3: Any, faulty: Faulty
) -> None:
    put(s3, "a", b"first")
    put(s3, "b", b"second")
    directory = fetch(URL)
    gets(faulty)
    path = directory / "a"
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(b"WRONG")
    os.utime(path, ns=times)
    assert held(fetch(URL)) == {"a": b"first", "b": b"second"}
    assert gets(faulty) == ["a"]
    fetch(URL)
    assert gets(faulty) == []


def test_a_file_that_only_looks_changed_is_compared_and_kept(s3: Any, faulty: Faulty) -> None:
    put(s3, "a", b"first")
    directory = fetch(URL)
    gets(faulty)
    os.utime(directory / "a")
    assert held(fetch(URL)) == {"a": b"first"}
    # As caches of older versions, which noted less.
    index = directory.parent / INDEX
    line = json.loads(index.read_text().splitlines()[-1])
    del line[1]["ctime_ns"]
    index.write_text(json.dumps(line) + "\n")
    assert held(fetch(URL)) == {"a": b"first"}
    assert gets(faulty) == []


def test_what_versions_share_is_not_read_again(
    s3: Any, faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(s3, "a", b"first")
    old = fetch(URL)
    put(s3, "b", b"second")
    unpin(old.parent)  # so that the other link to the file is removed
    new = fetch(URL)
    assert not old.exists()
    read: list[Path] = []
    monkeypatch.setattr("foundation.storage.s3.mirror.is_known", lambda _, path: read.append(path))
    gets(faulty)
    assert held(fetch(URL)) == held(new) == {"a": b"first", "b": b"second"}
    assert (read, gets(faulty)) == ([], [])
