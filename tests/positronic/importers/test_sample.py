import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from foundation.errors import StorageError
from positronic.importers import sample


def archive(path: Path, name: str, content: bytes) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return path


def test_sample_is_the_file_expected(sample_file: Path) -> None:
    assert hashlib.sha256(sample_file.read_bytes()).hexdigest() == sample.SHA256


def test_a_file_in_the_cache_is_not_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def no_pip(scratch: Path) -> Iterator[list[str]]:
        raise AssertionError("asked for a pip")

    monkeypatch.setattr(sample, "_pips", no_pip)
    kept = sample.cache_dir() / "robomimic-0.1.0-test.hdf5"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"here")
    monkeypatch.setattr(sample, "SHA256", hashlib.sha256(b"here").hexdigest())
    assert sample.fetch() == kept
    kept.write_bytes(b"harm")
    with pytest.raises(AssertionError, match="asked for a pip"):  # a damaged one is
        sample.fetch()


def test_a_link_as_the_lock_leads_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    other = tmp_path / "other"
    other.write_text("precious")
    sample.cache_dir().mkdir(parents=True)
    (sample.cache_dir() / ".lock").symlink_to(other)
    with pytest.raises(OSError, match="it is a symbolic link.*remove it"):
        sample.fetch()
    assert other.read_text() == "precious"


def test_without_any_pip_the_mend_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sample, "_pips", lambda scratch: iter([["/no/such/pip"], ["false"]]))
    with pytest.raises(StorageError, match=r"robomimic==0\.1\.0.*put .*test\.hdf5"):
        sample.fetch()
    assert not list(sample.cache_dir().glob("*.hdf5"))


@pytest.mark.parametrize(
    ("name", "named"), [(sample.MEMBER, "digest"), ("robomimic-0.1.0/other", "no readable")]
)
def test_another_content_is_refused(tmp_path: Path, name: str, named: str) -> None:
    with pytest.raises(StorageError, match=named):
        sample._unpack(archive(tmp_path / "a.tar.gz", name, b"something else"), tmp_path)
