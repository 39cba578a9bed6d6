from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foundation import storage
from foundation.errors import StorageError
from foundation.storage import publish as publish_command
from tests.foundation.storage.s3.files import held, made
from tests.s3 import Faulty

URI = "s3://bucket/recordings"
FIRST = {"000/meta.json": b"first"}


def record(
    files: dict[str, bytes],
    *,
    append: bool = False,
    then: Callable[[Path], Any] = lambda place: None,
) -> Path:
    with storage.output_directory(URI, append=append) as place:
        made(place, files)
        then(place)
    return place


def outbox(tmp_path: Path) -> Path:
    """The one output that waits."""
    (place,) = (tmp_path / "data-home/positronic/outbox").glob("*/recordings")
    return place


def test_a_local_directory_is_written_at_once(tmp_path: Path) -> None:
    with storage.output_directory(tmp_path / "new") as place:
        assert place == tmp_path / "new"
        assert not place.exists()


def test_what_was_written_is_published(s3: Any) -> None:
    assert not record(FIRST).exists()
    assert held(storage.fetch(URI)) == FIRST
    with pytest.raises(StorageError, match=r"recordings exists already; choose another"):
        record(FIRST)


def test_what_is_there_can_be_added_to(s3: Any, faulty: Faulty) -> None:
    record(FIRST, append=True)
    faulty.requests.clear()
    record({"001/meta.json": b"second"}, append=True)
    assert held(storage.fetch(URI)) == FIRST | {"001/meta.json": b"second"}
    assert not [path for method, path in faulty.requests if method == "PUT" and "/000/" in path]


def test_where_someone_else_added_meanwhile_nothing_is_lost(
    s3: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(FIRST)
    theirs = made(tmp_path / "theirs", FIRST | {"001/meta.json": b"theirs"})
    ours = {"001/meta.json": b"ours"}
    with pytest.raises(StorageError, match="was not published: it has changed meanwhile"):
        record(ours, append=True, then=lambda _: storage.publish(theirs, URI, replace=True))
    place = outbox(tmp_path)
    assert held(storage.fetch(URI)) == held(theirs)
    assert held(place) == FIRST | {"001/meta.json": b"ours"}
    assert f"it is in {place}; publish it with positronic-storage" in capsys.readouterr().err


def test_an_upload_that_fails_costs_nothing(
    s3: Any, faulty: Faulty, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(StorageError, match="tried 5 times"):
        record(FIRST, then=lambda _: faulty.refuse())
    place = outbox(tmp_path)
    assert held(place) == FIRST
    faulty.enter()
    with pytest.raises(StorageError, match=r"an earlier output .* was not published yet: it is in"):
        record(FIRST)
    command = capsys.readouterr().err.strip().rpartition("publish ")[2]
    assert command == f"--directory={place} --uri={URI}"
    publish_command(directory=str(place), uri=URI)
    assert held(storage.fetch(URI)) == FIRST


def interrupt(place: Path) -> None:
    raise KeyboardInterrupt


def test_what_was_written_before_an_error_is_kept(s3: Any, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        record(FIRST, then=interrupt)
    assert held(outbox(tmp_path)) == FIRST
    assert not storage.exists(URI)


def test_an_error_before_anything_was_written_leaves_nothing(s3: Any, tmp_path: Path) -> None:
    record(FIRST)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            record({}, append=True, then=lambda place: 1 / len(FIRST.keys() - held(place)))
        assert not list((tmp_path / "data-home/positronic/outbox").glob("*/recordings"))


def test_one_process_at_a_time_writes(s3: Any) -> None:
    with (
        storage.output_directory(URI),
        pytest.raises(StorageError, match=f"another process on this machine writes to {URI}"),
        storage.output_directory(f"{URI}/"),
    ):
        pass
