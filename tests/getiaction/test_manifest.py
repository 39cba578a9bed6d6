import os
from pathlib import Path

import pytest

from getiaction.manifest import MANIFEST, faults, seal


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
    assert faults(sealed) == [f"its {MANIFEST} is not readable"]


def test_no_manifest_at_all(tmp_path: Path) -> None:
    assert faults(tmp_path) == [f"it has no {MANIFEST}"]
    assert faults(tmp_path / "nothing") == [f"it has no {MANIFEST}"]
