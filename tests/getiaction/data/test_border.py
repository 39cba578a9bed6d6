"""Datasets that mean harm are refused in one line before LeRobot opens them."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foundation.documents import Reader
from foundation.errors import FoundationError
from getiaction.data.border import require_sound_metadata, require_sound_rows
from getiaction.data.opening import read_metadata, with_statistics
from getiaction.dataset_info import parse_info, parse_statistics
from getiaction.errors import GetiactionError
from tests.malicious_datasets import DATA, INFO, MALICIOUS, STATS, bomb, text, write
from tests.mutations import mutations

NAMES = [name for name, *_ in MALICIOUS]
READER = Reader(error=GetiactionError, allow_nan=True)


def around(root: Path) -> dict[str, Any]:
    """Everything beside the dataset: names, and when they were changed."""
    return {
        path.relative_to(root.parent).as_posix(): path.lstat().st_mtime_ns
        for path in root.parent.rglob("*")
    }


@pytest.mark.parametrize(("damage", "told"), [m[1:] for m in MALICIOUS], ids=NAMES)
def test_it_is_refused(tmp_path: Path, damage: Callable[[Path], Any], told: str) -> None:
    root = write(tmp_path / "around" / "dataset")
    require_sound_metadata(root)
    damage(root)
    before = around(root)
    begun = time.process_time()
    with pytest.raises(FoundationError) as refusal:
        read_metadata("foreign", root)
    message = str(refusal.value)
    assert told in message
    assert len(message) < 600
    assert message.isprintable()
    assert around(root) == before
    assert time.process_time() - begun < 5


def test_rows_that_would_take_all_memory_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "dataset")
    require_sound_rows(root)
    bomb(DATA)(root)
    with pytest.raises(FoundationError, match=r"file-000\.parquet"):
        require_sound_rows(root)


@pytest.mark.parametrize("document", [
    INFO,
    {key: INFO[key] for key in ("codebase_version", "fps", "features")},
    INFO | {"video_path": None, "robot_type": None, "tools": [{"type": "function"}], "fps": 29.97},
    INFO | {"codebase_version": "v3.1", "data_path": "data/all.parquet", "splits": {}},
    INFO | {"data_path": "data/{chunk_index}/{file_index:06}.parquet"},
])  # fmt: skip
def test_anybodys_dataset_passes(document: dict[str, Any]) -> None:
    info = parse_info(json.dumps(document), "info.json", READER)
    assert info.data_file(1, 23).startswith("data/")
    assert info.video_file("camera", 1, 2) == "videos/camera/chunk-001/file-002.mp4"


def test_older_formats_are_told(tmp_path: Path) -> None:
    root = write(tmp_path / "dataset")
    # With the templates of that format.
    older = INFO | {
        "codebase_version": "v2.1",
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    }
    text("meta/info.json", json.dumps(older))(root)
    with pytest.raises(FoundationError, match=r"of LeRobot's format v2\.1, expected v3\.0"):
        read_metadata("foreign", root)


class Meta:
    """What `with_statistics` takes of LeRobot's metadata."""

    root = "there"
    camera_keys: tuple[str, ...] = ()

    def __init__(self, mean: float) -> None:
        self.features = {"action": {"dtype": "float32", "shape": (2,), "names": None}}
        self.stats = {"action": {"mean": [mean, 0.0]}, "next.reward": {"mean": [float("nan")]}}


def test_statistics_by_which_all_would_be_nan_are_refused() -> None:
    assert with_statistics(Meta(1.0), use_imagenet_stats=False).stats["action"]
    with pytest.raises(FoundationError, match="statistics of action .* have NaN or infinity"):
        with_statistics(Meta(float("nan")), use_imagenet_stats=False)


def require_one_line(read: Callable[[bytes], object], document: Any, seed: int) -> None:
    """Whatever is wrong with a document is one line of ours."""
    messages = []
    for content in mutations(document, 5000, seed):
        try:
            read(content)
        except FoundationError as error:
            messages.append(str(error))
    assert len(messages) > 500
    assert [message for message in messages if not message.isprintable()] == []


@pytest.mark.parametrize("seed", [0, 1])
def test_mutations_of_info_end_in_one_line(seed: int) -> None:
    def read(content: bytes) -> None:
        info = parse_info(content, "info.json", READER)
        for name in (info.data_file(3, 4), info.video_file("camera", 3, 4)):
            assert not name.startswith("/")
            assert ".." not in name.split("/")

    require_one_line(read, INFO, seed)


@pytest.mark.parametrize("seed", [0, 1])
def test_mutations_of_statistics_end_in_one_line(seed: int) -> None:
    require_one_line(lambda content: parse_statistics(content, "stats.json", READER), STATS, seed)
