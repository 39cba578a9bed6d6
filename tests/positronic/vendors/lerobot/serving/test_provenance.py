import json
from pathlib import Path
from typing import Any

import pytest

from positronic.dataset.trained_on import (
    dataset_name,
    digests,
    dropped,
    is_among,
    without_recordings,
)
from positronic.vendors.lerobot.serving.provenance import trained_on


def write(directory: Path, dataset: Any) -> Path:
    (directory / "provenance.json").write_text(json.dumps({"dataset": dataset, "starts": []}))
    return directory


@pytest.mark.parametrize("root", ["/data/stack", "s3://bucket/stack/", "stack"])
def test_a_checkpoint_names_its_dataset_and_recordings(tmp_path: Path, root: str) -> None:
    recordings = digests(["b", "a"])
    meta = trained_on(write(tmp_path, {"root": root, "recordings": recordings, "fps": 15}))
    assert meta == {"trained_on": {"dataset": "stack", "recordings": recordings}}
    assert [is_among(uid, meta) for uid in "abc"] == [True, True, False]
    assert dataset_name(meta) == "stack"
    assert without_recordings({"type": "act", **meta}) == {
        "type": "act",
        "trained_on": {"dataset": "stack"},
    }


def test_a_checkpoint_says_how_many_recordings_edits_had_left_out(tmp_path: Path) -> None:
    left_out = [
        {"source": "/raw/1", "uid": "b", "why": "spilled"},
        {"source": "/raw/2", "uid": "c"},
    ]
    edits = [{"digest": "0" * 64, "dropped": left_out}, {"digest": "1" * 64, "dropped": []}]
    meta = trained_on(write(tmp_path, {"root": "/data/stack", "edits": edits}))
    assert dropped(meta) == 2
    assert meta["trained_on"]["edits"] == ["0" * 64, "1" * 64]
    assert dropped(trained_on(write(tmp_path, {"root": "/data/stack"}))) == 0
    assert dropped({"trained_on": {"dropped": "many"}}) == 0


@pytest.mark.parametrize(
    "dataset",
    [
        None,
        7,
        {"root": 7},
        {"root": "/"},
        {"root": "x", "recordings": "abc"},
        {"root": "x" * 5000},
        {"root": "x", "edits": 7},
    ],
)
def test_what_it_says_badly_is_as_if_it_said_nothing(tmp_path: Path, dataset: Any) -> None:
    assert trained_on(write(tmp_path, dataset)) == {}


def test_older_checkpoints_say_nothing_of_recordings(tmp_path: Path) -> None:
    assert trained_on(tmp_path) == {}
    meta = trained_on(write(tmp_path, {"root": "/data/stack"}))
    assert dataset_name(meta) == "stack"
    assert not is_among("a", meta)
    (tmp_path / "provenance.json").write_text("[" * 500)
    assert trained_on(tmp_path) == {}
