"""Readers see the old whole or the new whole, whatever happens to who publishes."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from foundation.errors import StorageError
from foundation.storage.s3 import Location, fetch, publish, remove, take_snapshot
from foundation.storage.s3.manifest import MANIFEST
from foundation.storage.s3.publishing import Publication
from tests.foundation.storage.s3.files import URL, child, held, made, objects, put
from tests.s3 import Faulty
from tests.waiting import join

OLD = {"a": b"old a", "deep/b": b"the same", "c": b"old c"}
NEW = {"a": b"new a", "deep/b": b"the same", "d": b"new d"}
CHILD = """
import sys
from pathlib import Path
from foundation.storage.s3 import client, publish
client.PARALLEL = 1
publish(Path(sys.argv[1]), sys.argv[2], replace=sys.argv[3] == "replace")
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return made(tmp_path / "old", OLD)


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return made(tmp_path / "new", NEW)


def plain(s3: Any) -> dict[str, bytes]:
    """What tools see that know no manifest."""
    return {name: content for name, content in objects(s3).items() if name != MANIFEST}


def puts(faulty: Faulty) -> list[str]:
    """The names that were written since last asked."""
    names = [
        path.removeprefix("/bucket/datasets/small/").partition("?")[0]
        for method, path in faulty.requests
        if method == "PUT"
    ]
    faulty.requests.clear()
    return names


def test_files_lie_under_their_names(s3: Any, old: Path) -> None:
    publish(old, URL)
    assert plain(s3) == OLD


def test_nothing_is_sent_twice(s3: Any, faulty: Faulty, old: Path, new: Path) -> None:
    publish(old, URL)
    assert sorted(puts(faulty)) == [MANIFEST, MANIFEST, "a", "c", "deep/b"]
    publish(old, URL)
    assert puts(faulty) == []
    publish(new, URL, replace=True)
    sent = puts(faulty)
    assert len([name for name in sent if name.startswith(".publishing/")]) == 2
    assert "deep/b" not in sent
    # What is no more part of it stays, as nobody has asked to remove it.
    assert plain(s3) == NEW | {"c": OLD["c"]}
    assert held(fetch(URL)) == NEW
    remove(URL, ["c"])
    assert plain(s3) == NEW


def killed_at(faulty: Faulty, number: int, arguments: list[str], applied: bool) -> bool:
    """Publish in a process that is killed at its ``number``-th change; say whether it was."""
    seen: list[str] = []
    ready = threading.Event()

    def watch(method: str, path: str) -> None:
        if method not in ("PUT", "DELETE", "POST"):
            return
        seen.append(path)
        if len(seen) == number:
            assert ready.wait(120), "the publishing process was not started"
            process.kill()
            process.wait(60)
            if not applied:
                raise ConnectionAbortedError  # the proxy gives up the request too

    faulty.watch = watch
    process = child(CHILD, *arguments)
    ready.set()
    with process:
        code = process.wait(300)
        assert code in (0, -9), process.stderr.read() if process.stderr else ""
    faulty.watch = None
    return code != 0


def kills(faulty: Faulty, *arguments: str) -> Iterator[int]:
    """Kill the publication at its first change, at its second, ... until it gets through."""
    for number in range(1, 100):
        if not killed_at(faulty, number, list(arguments), applied=number % 2 == 0):
            return
        yield number
    raise AssertionError("a publication was killed 99 times and never got through")


def test_a_first_publication_may_be_killed_at_any_moment(
    s3: Any, faulty: Faulty, old: Path
) -> None:
    # Each is the next process's beginning, as it would be.
    steps = 0
    for steps in kills(faulty, str(old), URL, ""):
        with pytest.raises(StorageError, match=r"nothing at|small is unfinished: .* run that"):
            fetch(URL)
        if steps == 9:
            break
    assert 2 <= steps < 9
    assert plain(s3) == held(fetch(URL)) == OLD


def test_a_replacement_may_be_killed_at_any_moment(
    s3: Any, faulty: Faulty, old: Path, new: Path
) -> None:
    publish(old, URL)
    seen = []
    for _ in kills(faulty, str(new), URL, "replace"):
        seen.append(held(fetch(URL)))
        assert seen[-1] in (OLD, NEW)
    assert seen[0] == OLD
    assert seen[-1] == NEW
    assert seen == sorted(seen, key=lambda content: content == NEW)  # never back again
    assert plain(s3) == NEW | {"c": OLD["c"]}


def test_who_reads_while_it_is_replaced_gets_one_of_both(
    s3: Any, faulty: Faulty, old: Path, new: Path
) -> None:
    publish(old, URL)
    done: list[str] = []

    def watch(method: str, path: str) -> None:
        if method == "GET" and path.endswith("/small/a") and not done:
            done.append(path)
            publish(new, URL, replace=True)

    faulty.watch = watch
    assert held(fetch(URL)) == NEW
    assert done


def test_a_file_replaced_behind_the_manifest_is_named(
    s3: Any, old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(old, URL)
    put(s3, "a", b"new a")  # of the same size
    with pytest.raises(
        StorageError, match=r"small/a has other content .* has replaced it; publish it again"
    ):
        fetch(URL)
    publish(old, URL)
    assert held(fetch(URL)) == OLD
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another cache"))
    s3.delete_object(Bucket="bucket", Key="datasets/small/a")
    put(s3, "c", b"longer than it was")
    with pytest.raises(StorageError, match=r"small/[ac] .*; publish it again"):
        fetch(URL)
    publish(old, URL)
    assert held(fetch(URL)) == plain(s3) == OLD


def test_what_other_tools_uploaded_is_replaced_only_when_asked(
    s3: Any, old: Path, new: Path
) -> None:
    for name, content in OLD.items():
        put(s3, name, content)
    with pytest.raises(StorageError, match=r"small holds files already; .* ask to replace"):
        publish(new, URL)
    assert held(fetch(URL)) == OLD
    publish(new, URL, replace=True)
    assert held(fetch(URL)) == NEW


def test_an_unfinished_publication_is_not_mixed_with_another(
    s3: Any, faulty: Faulty, old: Path, new: Path
) -> None:
    assert killed_at(faulty, 3, [str(old), URL, ""], applied=True)
    with pytest.raises(StorageError, match=r"holds an unfinished publication of something"):
        publish(new, URL)
    publish(new, URL, replace=True)
    assert held(fetch(URL)) == NEW
    assert NEW.items() <= plain(s3).items()


def test_of_two_at_once_the_later_is_refused(s3: Any, faulty: Faulty, old: Path, new: Path) -> None:
    started: list[str] = []

    def watch(method: str, path: str) -> None:
        if method == "PUT" and path.endswith("/small/a") and not started:
            started.append(path)
            with pytest.raises(StorageError, match="holds an unfinished publication"):
                publish(new, URL)

    faulty.watch = watch
    publish(old, URL)
    assert started
    assert held(fetch(URL)) == plain(s3) == OLD


def test_of_two_replacements_at_once_both_are_whole(
    s3: Any, faulty: Faulty, old: Path, new: Path, tmp_path: Path
) -> None:
    publish(old, URL)
    third = made(tmp_path / "third", {"a": b"third", "e": b"e"})
    started: list[str] = []

    def watch(method: str, path: str) -> None:
        if method == "PUT" and ".publishing" in path and not started:
            started.append(path)
            publish(third, URL, replace=True)

    faulty.watch = watch
    publish(new, URL, replace=True)
    assert held(fetch(URL)) == NEW
    assert NEW.items() <= plain(s3).items()


def test_only_what_was_read_is_replaced(
    s3: Any, faulty: Faulty, old: Path, new: Path, tmp_path: Path
) -> None:
    publish(old, URL)
    read = take_snapshot(Location.parse(URL)).version
    third = made(tmp_path / "third", {"a": b"third", "e": b"e"})
    started: list[str] = []

    def watch(method: str, path: str) -> None:
        if method == "PUT" and ".publishing" in path and not started:
            started.append(path)
            publish(third, URL, replace=True)

    faulty.watch = watch
    with pytest.raises(StorageError, match="was not published: it has changed meanwhile"):
        publish(new, URL, replace=True, over=read)
    assert held(fetch(URL)) == held(third)
    publish(new, URL, replace=True, over=take_snapshot(Location.parse(URL)).version)
    assert held(fetch(URL)) == NEW


def test_the_same_at_once_is_no_conflict(s3: Any, old: Path) -> None:
    errors: list[BaseException] = []

    def one() -> None:
        try:
            publish(old, URL)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    join(threads, "three publications at once")
    assert errors == []
    assert held(fetch(URL)) == plain(s3) == OLD


def test_only_what_it_set_aside_itself_is_cleaned_up(s3: Any, old: Path) -> None:
    publish(old, URL)
    own = Publication(old, Location.parse(URL)).place
    put(s3, f"{own}/left", b"by a publication that was killed")
    put(s3, ".publishing/other/left", b"by another, which may be at it")
    publish(old, URL)
    assert plain(s3).keys() - OLD.keys() == {".publishing/other/left"}


def test_within_a_published_directory_its_manifest_counts(
    s3: Any, faulty: Faulty, old: Path
) -> None:
    assert killed_at(faulty, 4, [str(old), URL, ""], applied=True)
    assert plain(s3)  # one of them; they are sent side by side
    with pytest.raises(StorageError, match="small is unfinished"):
        fetch(f"{URL}/deep")
    publish(old, URL)
    put(s3, "deep/stray", b"not published")
    put(s3, "beside/c", b"not published either")
    assert held(fetch(f"{URL}/deep")) == {"b": OLD["deep/b"]}
    faulty.status(403, path="/small/.published.json")  # only what is below may be read
    assert held(fetch(f"{URL}/beside")) == {"c": b"not published either"}
    assert faulty.faults[-1].times == 0


def test_neighbours_are_never_touched(s3: Any, old: Path, new: Path) -> None:
    publish(old, f"{URL}/run")
    publish(new, f"{URL}/run2")
    publish(new, f"{URL}/run2", replace=True)
    remove(f"{URL}/run2", list(NEW))
    assert held(fetch(f"{URL}/run")) == OLD
    assert {name.partition("/")[0] for name in objects(s3)} == {"run"}


def test_what_cannot_be_published_is_refused(s3: Any, old: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    linked = made(tmp_path / "linked", {"a": b""})
    (linked / "last").symlink_to(old)
    taken = made(tmp_path / "taken", {f"x/{MANIFEST}": b""})
    for directory, expected in {
        tmp_path / "empty": "nothing to publish",
        tmp_path / "none": "there is no directory",
        linked: "last is a link to a directory",
        taken: "cannot be published under that name",
    }.items():
        with pytest.raises(StorageError, match=expected):
            publish(directory, URL)
    put(s3, "file", b"")
    with pytest.raises(StorageError, match="small/file is a file; expected"):
        publish(old, f"{URL}/file")
    with pytest.raises(StorageError, match="its bucket does not exist"):
        publish(old, "s3://nowhere/x")


def test_a_later_format_is_refused(s3: Any) -> None:
    put(s3, MANIFEST, b'{"format": 2}')
    with pytest.raises(StorageError, match="'format': expected 1, so that a newer version"):
        fetch(URL)
    put(s3, MANIFEST, b"{")
    with pytest.raises(StorageError, match="is not JSON: .*remove that object and publish again"):
        fetch(URL)
