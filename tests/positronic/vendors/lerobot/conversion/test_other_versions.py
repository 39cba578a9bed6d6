"""Recordings of other versions are converted by what they say of themselves."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from foundation.errors import StorageError
from positronic.codec import FlipGrip
from positronic.dataset import Dataset, LocalDataset
from positronic.dataset.conventions import OPEN_0, Declared
from positronic.dataset.dataset import ConcatDataset
from positronic.dataset.subsets import where
from positronic.dataset.transforms import DerivedDataset
from positronic.errors import DatasetError
from positronic.vendors.lerobot import codecs
from positronic.vendors.lerobot.conversion import assembly
from positronic.vendors.lerobot.conversion.append import append_dataset
from positronic.vendors.lerobot.conversion.encode_episode import Recipe
from positronic.vendors.lerobot.conversion.job import describe, differences
from positronic.vendors.lerobot.conversion.pipeline import Options, convert_dataset
from tests.positronic.vendors.lerobot.raw import FPS, record

FLIPPED = {"grip_convention": {"open": 0.0, "closed": 1.0}}


def rows(dataset: Dataset, out: Path, codec: Any = None) -> tuple[NDArray[Any], NDArray[Any]]:
    """States and actions of all rows of the converted dataset."""
    convert_dataset(dataset, codec or codecs.eepose_state(), out, FPS)
    (file,) = (out / "data").rglob("*.parquet")
    table = pq.read_table(file)
    columns = ("observation.state", "action")
    state, action = (np.stack(table[name].to_numpy()) for name in columns)
    return state, action


@pytest.fixture
def plain(tmp_path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    record(tmp_path / "plain", 0, size=None)
    return rows(LocalDataset(tmp_path / "plain"), tmp_path / "plain-out")


def turned(values: NDArray[Any]) -> NDArray[Any]:
    """The same rows with the grip, their last number, counted the other way."""
    return np.concatenate([values[:, :-1], 1 - values[:, -1:]], axis=1)


def test_a_flipped_grip_is_turned_to_what_the_codec_says(tmp_path: Path, plain: Any) -> None:
    record(tmp_path / "raw", 0, size=None, statics=FLIPPED)
    dataset = LocalDataset(tmp_path / "raw")
    for ours, theirs in zip(rows(dataset, tmp_path / "out"), plain, strict=True):
        np.testing.assert_allclose(ours, turned(theirs), atol=1e-7)
    flip = FlipGrip() | codecs.eepose_state()
    for ours, theirs in zip(rows(dataset, tmp_path / "flip", flip), plain, strict=True):
        np.testing.assert_allclose(ours, turned(theirs), atol=1e-7)


@pytest.mark.parametrize("statics", [{}, FLIPPED], ids=["1 is open", "0 is open"])
@pytest.mark.parametrize("scale", [255.0, 1e30])
def test_a_grip_beyond_what_is_said_of_it_is_refused(
    tmp_path: Path, statics: dict[str, Any], scale: float
) -> None:
    path = record(tmp_path / "raw", 0, size=None, statics=statics)
    record(tmp_path / "raw", 1, size=None, statics=statics)
    file = path / "grip.parquet"
    table = pq.read_table(file)
    scaled = pa.array([scale * value for value in table["value"].to_pylist()])
    pq.write_table(table.set_column(1, "value", scaled), file)
    report = convert_dataset(
        LocalDataset(tmp_path / "raw"), codecs.eepose_state(), tmp_path / "out", FPS
    )
    ((source, reason),) = report.refused
    assert source == str(path)
    assert "its grip is " in reason
    assert "correct its grip_convention with an edit log" in reason


def test_what_a_policy_commanded_may_be_a_little_beyond(tmp_path: Path) -> None:
    path = record(tmp_path / "raw", 0, size=None)
    file = path / "target_grip.parquet"
    table = pq.read_table(file)
    beyond = pa.array([1.3 - 1.5 * value for value in table["value"].to_pylist()])
    pq.write_table(table.set_column(1, "value", beyond), file)
    _, action = rows(LocalDataset(tmp_path / "raw"), tmp_path / "out")
    np.testing.assert_allclose(action[:-1, 7], beyond.to_numpy(), atol=1e-6)


def test_commands_under_their_later_name_are_found(tmp_path: Path, plain: Any) -> None:
    path = record(tmp_path / "raw", 0, size=None)
    os.rename(path / "robot_commands.pose.parquet", path / "robot_command.pose.parquet")
    found = rows(LocalDataset(tmp_path / "raw"), tmp_path / "out")
    for ours, theirs in zip(found, plain, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_failures_are_told(tmp_path: Path) -> None:
    for index, success in enumerate([True, False, None]):
        path = record(tmp_path / "raw", index, size=None)
        if success is not None:
            statics = json.loads((path / "static.json").read_text())
            (path / "static.json").write_text(json.dumps(statics | {"eval.success": success}))
    dataset, codec = LocalDataset(tmp_path / "raw"), codecs.eepose_state()
    (line,) = convert_dataset(dataset, codec, tmp_path / "out", FPS).warnings()
    assert line.startswith("note: 1 of 3 episodes have eval.success=False")
    kept = convert_dataset(where(dataset, {"eval.success": True}), codec, tmp_path / "kept", FPS)
    assert (kept.episodes, kept.warnings()) == (1, [])


def test_what_says_nothing_is_left_and_told_once(tmp_path: Path, plain: Any) -> None:
    for index in range(2):
        path = record(tmp_path / "raw", index, size=None)
        (path / "static.json").write_text('{"task": "t"}')
    silent = LocalDataset(tmp_path / "raw")
    report = convert_dataset(silent, codecs.eepose_state(), tmp_path / "out", FPS)
    (line,) = report.warnings()
    assert line.startswith("note: 2 of 2 episodes do not state their grip convention")
    assert "--dataset.dataset.grip_open=0 (or 1)" in line
    first = rows(silent[:1], tmp_path / "first")
    for ours, theirs in zip(first, plain, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    declared = DerivedDataset(silent[:1], Declared(OPEN_0), keep=True)
    for ours, theirs in zip(rows(declared, tmp_path / "declared"), plain, strict=True):
        np.testing.assert_allclose(ours, turned(theirs), atol=1e-7)
    said = convert_dataset(declared, codecs.eepose_state(), tmp_path / "said", FPS)
    assert said.warnings() == []


def test_what_was_said_since_is_not_mixed_with_what_was_said_then(tmp_path: Path) -> None:
    (record(tmp_path / "raw", 0, size=None) / "static.json").write_text("{}")
    silent, codec = LocalDataset(tmp_path / "raw"), codecs.eepose_state()
    declared = DerivedDataset(silent, Declared(OPEN_0), keep=True)
    convert_dataset(silent, codec, tmp_path / "out", FPS)
    with pytest.raises(StorageError, match="converted with other inputs .*: the raw episodes"):
        convert_dataset(declared, codec, tmp_path / "out", FPS, Options(resume=True))
    contract = assembly.contract_of(codec, FPS, video=True)
    recipe = Recipe(codec, FPS, None)
    jobs = (describe(data, contract, recipe, {}) for data in (silent, declared))
    (difference,) = differences(*jobs)
    assert difference.startswith(f"the static values of raw episode 0, {tmp_path}")


def silent_and_stated(root: Path) -> tuple[LocalDataset, LocalDataset]:
    """Two recordings that say nothing of their grip, and two that do."""
    for index in range(4):
        path = record(root / ("silent" if index < 2 else "stated"), index, size=None)
        if index < 2:
            (path / "static.json").write_text('{"task": "t"}')
    return LocalDataset(root / "silent"), LocalDataset(root / "stated")


def test_an_append_of_what_says_nothing_is_told_as_well(tmp_path: Path) -> None:
    silent, _ = silent_and_stated(tmp_path)
    codec = codecs.eepose_state()
    convert_dataset(silent[:1], codec, tmp_path / "out", FPS)
    report = append_dataset(silent, codec, tmp_path / "out")
    line, note = report.warnings()
    assert line.startswith("skipped 1 that are already in the dataset")
    assert note.startswith("note: 1 of 1 episodes do not state their grip convention")
    assert append_dataset(silent, codec, tmp_path / "out").grip_unstated == 0


def test_grips_that_may_count_opposite_ways_are_not_mixed(tmp_path: Path) -> None:
    silent, stated = silent_and_stated(tmp_path)
    codec, flag = codecs.eepose_state(), r"--dataset\.dataset\.grip_open=0 \(or 1\)"
    both = ConcatDataset(silent, stated)
    with pytest.raises(DatasetError, match=rf"2 recordings do not state .* 2 others do; .*{flag}"):
        convert_dataset(both, codec, tmp_path / "out", FPS)
    assert not list(tmp_path.glob("*out*"))
    convert_dataset(stated, codec, tmp_path / "out", FPS)
    with pytest.raises(DatasetError, match=rf"2 recordings do not state .* 2 others do; .*{flag}"):
        append_dataset(silent, codec, tmp_path / "out")
    declared = DerivedDataset(silent, Declared(OPEN_0), keep=True)
    assert append_dataset(declared, codec, tmp_path / "out").warnings() == []
    convert_dataset(silent, codec, tmp_path / "unsaid", FPS)
    with pytest.raises(DatasetError, match=rf"the 2 episodes of the dataset come from .*{flag}"):
        append_dataset(stated, codec, tmp_path / "unsaid")
