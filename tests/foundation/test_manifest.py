import json
import os
from pathlib import Path

import pytest

from foundation.manifest import MANIFEST, faults, seal
from tests.mutations import mutations


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    (tmp_path / "deep").mkdir()
    (tmp_path / "weights").write_bytes(b"weights" * 999)
    (tmp_path / "deep/config.json").write_text("{}")
    (tmp_path / "deep/empty").touch()
    seal(tmp_path)
    return tmp_path


def test_a_whole_directory_has_no_faults(sealed: Path) -> None:
    assert faults(sealed) == []
    (sealed / "note.txt").write_text("somebody's own")
    assert faults(sealed) == []
    seal(sealed)
    assert faults(sealed) == []


def test_each_change_is_named(sealed: Path) -> None:
    weights = sealed / "weights"
    content = bytearray(weights.read_bytes())
    content[17] ^= 1
    weights.write_bytes(content)
    assert faults(sealed) == ["weights does not have the digest that it was saved with"]
    os.truncate(weights, 100)
    (sealed / "deep/empty").unlink()
    assert faults(sealed) == ["deep/empty is missing", "weights has 100 bytes instead of 6993"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"files": {"weights": {"size": 1}}}'])
def test_a_manifest_that_is_none(sealed: Path, content: str) -> None:
    (sealed / MANIFEST).write_text(content)
    (fault,) = faults(sealed)
    assert fault.startswith(f"its {MANIFEST} is not readable: {MANIFEST}")
    assert fault.isprintable()


def test_a_manifest_names_nothing_outside(sealed: Path, tmp_path: Path) -> None:
    whole = json.loads((sealed / MANIFEST).read_bytes())
    entry = {"size": 0, "sha256": "0" * 64}
    for name in ("/dev/zero", "../../etc/passwd", "deep/../../x", "a\\b", "", "deep/"):
        (sealed / MANIFEST).write_text(json.dumps({"files": whole["files"] | {name: entry}}))
        (fault,) = faults(sealed)
        assert "expected a plain relative path" in fault
    (sealed / MANIFEST).write_text(json.dumps({"files": {"link/passwd": entry}}))
    (sealed / "link").symlink_to("/etc")
    (fault,) = faults(sealed)
    assert "a symbolic link leads out of the directory" in fault
    # Neither is a device read without end, nor a pipe waited for.
    (sealed / MANIFEST).write_text(json.dumps({"files": {"zero": entry, "pipe": entry}}))
    (sealed / "zero").symlink_to("/dev/zero")
    os.mkfifo(sealed / "pipe")
    assert faults(sealed) == ["pipe is not a regular file", "zero is not a regular file"]
    (sealed / MANIFEST).unlink()
    os.mkfifo(sealed / MANIFEST)
    (fault,) = faults(sealed)
    assert "is not a regular file" in fault


def test_mutations_of_a_manifest_are_faults(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"weights")
    seal(tmp_path)
    document = json.loads((tmp_path / MANIFEST).read_bytes())
    whole = 0
    for content in mutations(document, 10_000):
        (tmp_path / MANIFEST).write_bytes(content)
        found = faults(tmp_path)
        assert all(fault.isprintable() for fault in found)
        whole += not found
    assert 0 < whole < 5_000


def test_no_manifest_at_all(tmp_path: Path) -> None:
    assert faults(tmp_path) == [f"it has no {MANIFEST}"]
    assert faults(tmp_path / "nothing") == [f"it has no {MANIFEST}"]
