from pathlib import Path

import pytest

from positronic.cfg import ds
from positronic.dataset import DatasetWriter
from positronic.errors import DatasetError, StorageError


def test_local_joins_the_datasets_under_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        with DatasetWriter(tmp_path / "data" / name).new_episode() as episode:
            episode.append("grip", 1.0, 0)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(ds.local(path="~/data")) == 2


def test_local_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such directory"):
        ds.local(path=str(tmp_path / "nowhere"))
    with pytest.raises(StorageError, match="s3://bucket is not a local path"):
        ds.local(path="s3://bucket")
