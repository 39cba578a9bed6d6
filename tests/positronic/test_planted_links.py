"""Links that somebody put where this stack keeps its locks and drafts lead to nobody's file."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foundation.cache import exclusive
from foundation.errors import FoundationError
from foundation.storage import output_directory
from foundation.storage.s3.cache import LOCK as IN_USE
from foundation.storage.s3.cache import fetching, pin
from positronic.importers import sample
from positronic.vendors.lerobot.conversion.job import WorkDirectory
from positronic.vendors.lerobot.serving.backends import export_cache
from positronic.vendors.lerobot.training.run_directory import LOCK, RunDirectory


def _run_directory(place: Path) -> None:
    run = RunDirectory(str(place), place)
    (place / "checkpoints").mkdir()
    run.resume()


def _within(manager: Any) -> None:
    with manager:
        raise AssertionError("it was entered through the link")


PLACES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "exports": (".lock", lambda place: _within(export_cache._locked(place))),
    "run": (LOCK, _run_directory),
    "fetching": (".lock", lambda place: _within(fetching(place))),
    "version in use": (IN_USE, pin),
    "conversion": (
        "lock",
        lambda place: _within(WorkDirectory(place, str(place.parent / "out")).locked()),
    ),
    "decoded frames": ("abc.lock", lambda place: _within(exclusive(place / "abc.lock"))),
}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("exists", [True, False], ids=["file", "nothing"])
def test_a_lock_that_is_a_link_is_refused(name: str, exists: bool, tmp_path: Path) -> None:
    lock, enter = PLACES[name]
    victim, place = _scene(tmp_path, exists)
    (place / lock).symlink_to(victim)
    with pytest.raises(OSError, match=r"symbolic link; expected a file that this program keeps"):
        enter(place)
    _assert_untouched(tmp_path, exists)


def test_the_sample_refuses_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim, place = _scene(tmp_path, True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(place))
    sample.cache_dir().mkdir(parents=True)
    (sample.cache_dir() / ".lock").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        sample.fetch()
    _assert_untouched(tmp_path, True)


def test_the_outbox_refuses_it_too(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, place = _scene(tmp_path, True)
    monkeypatch.setenv("XDG_DATA_HOME", str(place))
    with (
        contextlib.suppress(KeyboardInterrupt),
        output_directory("s3://bucket/out") as directory,
    ):
        (home,) = directory.parent.parent.iterdir()
        raise KeyboardInterrupt
    (home / ".lock").unlink()
    (home / ".lock").symlink_to(victim)
    with (
        pytest.raises(FoundationError, match=r"/\.lock: it is a symbolic link; expected"),
        output_directory("s3://bucket/out"),
    ):
        raise AssertionError("it was entered through the link")
    assert victim.read_text() == "precious"


def test_drafts_at_the_names_of_older_versions_are_not_followed(tmp_path: Path) -> None:
    from positronic.vendors.lerobot.conversion import durable

    victim, place = _scene(tmp_path, True)
    (place / f".job.json.{os.getpid()}").symlink_to(victim)
    durable.write_text(place / "job.json", "{}")
    assert (place / "job.json").read_text() == "{}"
    _assert_untouched(tmp_path, True)


def test_a_version_that_is_a_link_is_not_given_up(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from foundation.storage.s3 import fetch
    from foundation.storage.s3.cache import cache_home

    outside = tmp_path / "outside"
    for folder in (outside / "version", outside / "other" / "version"):
        folder.mkdir(parents=True)
        (folder / IN_USE).touch()
        (folder / "file").write_bytes(bytes(1 << 20))
    s3.put_object(Bucket="bucket", Key="a/file", Body=b"content")
    place = fetch("s3://bucket/a").parent.parent
    (place / "link").symlink_to(outside / "version")
    (cache_home() / "place").symlink_to(outside / "other")
    s3.put_object(Bucket="bucket", Key="a/file", Body=bytes(1 << 20))
    monkeypatch.setenv("POSITRONIC_CACHE_SIZE", "1.5M")
    fetch("s3://bucket/a")
    assert sorted(path.name for path in outside.rglob("file")) == ["file", "file"]


def _scene(tmp_path: Path, exists: bool) -> tuple[Path, Path]:
    victim, place = tmp_path / "home" / "diary.txt", tmp_path / "shared"
    victim.parent.mkdir()
    place.mkdir()
    if exists:
        victim.write_text("precious")
    return victim, place


def _assert_untouched(tmp_path: Path, exists: bool) -> None:
    found = {path.name: path.read_text() for path in (tmp_path / "home").iterdir()}
    assert found == ({"diary.txt": "precious"} if exists else {})
