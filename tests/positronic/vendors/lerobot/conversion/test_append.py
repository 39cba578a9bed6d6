"""Appending: the dataset is then the one that a conversion of all episodes gives."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foundation import storage
from foundation.errors import StorageError
from positronic import cli
from positronic.codec import Codec, Contract, stats_digest
from positronic.dataset import Dataset, LocalDataset
from positronic.errors import ContractError, DatasetError
from positronic.source import commit
from positronic.vendors.lerobot import codecs
from positronic.vendors.lerobot.conversion import durable
from positronic.vendors.lerobot.conversion.append import append_dataset
from positronic.vendors.lerobot.conversion.pipeline import Options, convert_dataset
from positronic.vendors.lerobot.conversion.provenance import Provenance
from positronic.vendors.lerobot.convert import COMMANDS
from positronic.vendors.lerobot.verification.info import info
from positronic.vendors.lerobot.verification.repair import repair_statistics
from positronic.vendors.lerobot.verification.verify import verify, verify_dataset
from tests.positronic.vendors.lerobot.conversion.kills import (
    contents,
    files_in,
    killed,
    removals_of,
    renames_to,
    requests,
)
from tests.positronic.vendors.lerobot.raw import FPS, record

pytestmark = [
    # The forks do nothing but append, and take no lock of another thread.
    pytest.mark.filterwarnings("ignore:This process .*fork:DeprecationWarning"),
]

HERE = Options(workers=0)
GO_ON = Options(workers=0, resume=True)
STRIDE = 17  # every how manieth step it is killed at


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> LocalDataset:
    root = tmp_path_factory.mktemp("raw")
    for index, steps in enumerate((12, 5, 9, 4)):
        record(root, index, steps=steps, statics={"task": f"task {index % 3}"})
    return LocalDataset(root)


@pytest.fixture(scope="module")
def codec() -> Any:
    return codecs.eepose_absolute(image_size=(32, 32))


@pytest.fixture
def first(raw: LocalDataset, codec: Codec, tmp_path: Path) -> Path:
    """A dataset of the first two episodes."""
    root = tmp_path / "data" / "out"
    convert_dataset(raw[:2], codec, root, FPS, HERE)
    return root


def opened(root: Path) -> Any:
    from lerobot.datasets import LeRobotDataset

    return LeRobotDataset("local", root=root, video_backend="pyav")


def require_same(root: Path, other: Path) -> None:
    """Every value, frame, index and statistic of two datasets is the same."""
    one, two = opened(root), opened(other)
    assert len(one) == len(two)
    for index in range(len(two)):
        a, b = one[index], two[index]
        assert a.keys() == b.keys()
        for name in b:
            if isinstance(b[name], str):
                assert a[name] == b[name]
            else:
                np.testing.assert_array_equal(a[name].numpy(), b[name].numpy(), f"{index} {name}")
    for file in ("stats.json", "info.json"):
        assert json.loads((root / "meta" / file).read_text()) == json.loads(
            (other / "meta" / file).read_text()
        )
    assert one.meta.tasks.equals(two.meta.tasks)
    ours, theirs = Contract.load(root / "meta"), Contract.load(other / "meta")
    assert ours == theirs
    assert ours.stats_digest == stats_digest(one.meta.stats, ours.features)
    for dataset in (one, two):
        assert dataset.meta.episodes["dataset_to_index"][-1] == len(dataset)


@pytest.mark.parametrize("video", [True, False])
def test_appended_is_as_if_converted_at_once(
    raw: LocalDataset, codec: Codec, tmp_path: Path, video: bool
) -> None:
    root, options = tmp_path / "out", Options(workers=0, video=video)
    convert_dataset(raw, codec, tmp_path / "whole", FPS, options)
    convert_dataset(raw[:2], codec, root, FPS, options)
    (table,) = (root / "data").rglob("*.parquet")
    inode, before = table.stat().st_ino, contents(root)
    report = append_dataset(raw[1:3], codec, root, HERE)
    assert (report.episodes, report.frames) == (1, 10)
    assert report.skipped == (str(raw[1].path),)  # type: ignore[attr-defined]
    assert append_dataset(raw, codec, root, HERE, fps=FPS).frames == 5
    require_same(root, tmp_path / "whole")
    assert verify_dataset(root, workers=1).faults == ()
    assert table.stat().st_ino == inode  # not copied
    after = contents(root)
    for name in before:
        assert name.count("/") == 1 or after[name] == before[name]
    provenance = json.loads((root / "meta" / "provenance.json").read_text())
    assert [episode["frames"] for episode in provenance["episodes"]] == [13, 6, 10, 5]
    assert [each["episodes"] for each in provenance["appended"]] == [1, 1]
    assert [each["commit"] for each in provenance["appended"]] == [commit(), commit()]
    assert sorted(os.listdir(tmp_path)) == ["out", "whole"]
    again = append_dataset(raw, codec, root, GO_ON)
    assert (again.episodes, len(again.skipped)) == (0, 4)
    assert contents(root) == after


def test_recordings_that_nobody_named_are_told_apart(codec: Codec, tmp_path: Path) -> None:
    """Their uid is made of the sizes of their files, which two of the same length share."""
    paths = [record(tmp_path / name, 0, size=None, statics={"task": name}) for name in "ab"]
    for path in paths:
        (path / "meta.json").unlink()
    one, other = (LocalDataset(tmp_path / name) for name in "ab")
    assert one[0].uid == other[0].uid
    convert_dataset(one, codecs.eepose_state(), tmp_path / "out", FPS, HERE)
    assert append_dataset(other, codecs.eepose_state(), tmp_path / "out", HERE).episodes == 1
    both = append_dataset(one, codecs.eepose_state(), tmp_path / "out", HERE)
    assert (both.episodes, both.skipped) == (0, (str(paths[0]),))


def test_what_does_not_belong_is_refused(
    raw: LocalDataset, codec: Codec, first: Path, tmp_path: Path
) -> None:
    before = contents(first)
    with pytest.raises(ContractError, match="codec 'eepose_absolute' against 'joints_absolute'"):
        append_dataset(raw, codecs.joints_absolute(image_size=32), first, HERE)
    with pytest.raises(ContractError, match="--fps=10: .* has 15 rows per second"):
        append_dataset(raw, codec, first, HERE, fps=10)
    with pytest.raises(StorageError, match="no dataset at .*out to append to"):
        append_dataset(raw, codec, tmp_path / "nowhere" / "out", HERE)
    record(tmp_path / "bad", 9, without=("grip",))
    with pytest.raises(DatasetError, match="none of the 1 episodes could be converted"):
        append_dataset(LocalDataset(tmp_path / "bad"), codec, first, HERE)
    assert contents(first) == before
    provenance = first / "meta" / "provenance.json"
    document = json.loads(provenance.read_text())
    provenance.write_text(json.dumps(document | {"episodes": document["episodes"][:1]}))
    with pytest.raises(DatasetError, match="has 2 episodes, but its provenance lists 1"):
        append_dataset(raw, codec, first, HERE)
    (first / "meta" / "contract.json").unlink()
    with pytest.raises(ContractError, match="have a contract"):
        append_dataset(raw, codec, first, HERE)
    assert os.listdir(first.parent) == ["out"]


def appending(raw: Dataset, codec: Codec, root: Path | str) -> Callable[[], Any]:
    return lambda: append_dataset(raw, codec, root, GO_ON)


@pytest.mark.e2e
def test_killed_at_any_step_it_is_the_old_or_the_new(
    raw: LocalDataset, codec: Codec, tmp_path: Path
) -> None:
    def prepare(root: Path) -> Path:
        convert_dataset(raw[:2], codec, root / "out", FPS, HERE)
        return root / "out"

    old = contents(prepare(tmp_path / "whole"))
    append_dataset(raw, codec, tmp_path / "whole" / "out", HERE)
    new = contents(tmp_path / "whole" / "out")
    steps = 0
    for step in range(1, 10_000, STRIDE):
        root = prepare(tmp_path / f"{step}")
        if not killed(appending(raw, codec, root), files_in(root.parent), step):
            break
        found = contents(root)
        assert found in (old, new)
        steps += 1
        append_dataset(raw, codec, root, GO_ON)
        assert contents(root) == new
        assert os.listdir(root.parent) == ["out"]
    assert steps > 100 // STRIDE


def test_killed_after_the_swap_it_only_tidies_up(
    raw: LocalDataset, codec: Codec, first: Path
) -> None:
    job = first.parent / f".{first.name}.partial" / "job.json"
    # The first removal is for nothing, before it begins.
    assert killed(appending(raw, codec, first), removals_of(job), 2)
    assert len(opened(first)) == 34
    assert os.listdir(job.parent / "episodes") == ["000000", "000001"]
    assert append_dataset(raw, codec, first, HERE).episodes == 0
    assert len(opened(first)) == 34
    assert os.listdir(first.parent) == ["out"]


@pytest.mark.parametrize("by", ["append", "verify", "info", "repair", "convert"])
def test_a_swap_of_two_renames_is_finished_by_the_next_run(
    raw: LocalDataset, codec: Codec, first: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    monkeypatch.setattr(durable, "exchange", lambda one, other: False)
    assert killed(appending(raw, codec, first), renames_to(first))
    assert not first.exists()
    if by == "verify":
        assert cli.status({"verify": verify}, "prog", ["verify", f"--dataset_root={first}"]) == 0
    elif by == "info":
        assert cli.status({"info": info}, "prog", ["info", f"--dataset_root={first}"]) == 0
    elif by == "repair":
        with pytest.raises(StorageError, match="there is an unfinished conversion"):
            repair_statistics(str(first))
    elif by == "convert":
        with pytest.raises(StorageError, match="already exists"):
            convert_dataset(raw, codec, first, FPS, HERE)
    assert by == "append" or len(opened(first)) == 34
    assert append_dataset(raw, codec, first, HERE).episodes == 0
    assert len(opened(first)) == 34
    assert os.listdir(first.parent) == ["out"]


def test_an_unfinished_append_is_not_taken_unasked(
    raw: LocalDataset, codec: Codec, first: Path
) -> None:
    assert killed(appending(raw, codec, first), files_in(first.parent), 60)
    with pytest.raises(StorageError, match="of 2 episodes done: continue with --resume=True"):
        append_dataset(raw, codec, first, HERE)
    with pytest.raises(StorageError, match="was started with other inputs.*--task: None against x"):
        append_dataset(raw, codec, first, Options(resume=True, task="x"))
    with pytest.raises(
        StorageError, match="was started with other inputs.*raw episodes: 2 against 1"
    ):
        append_dataset(raw[:3], codec, first, GO_ON)
    assert append_dataset(raw, codec, first, GO_ON).earlier > 0


def test_the_command(
    raw: LocalDataset, codec: Codec, first: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    link = first.parent.parent / "link"
    link.symlink_to(first)
    words = [
        "append",
        f"--dataset.dataset.path={raw.root}",
        "--dataset.codec=@positronic.vendors.lerobot.codecs.eepose_absolute",
        "--dataset.codec.image_size=[32,32]",
        f"--output_dir={link}",
        "--workers=0",
    ]
    assert cli.status(COMMANDS, "prog", words) == 0
    captured = capfd.readouterr()
    assert captured.out.startswith("appended 2 episodes, 2 skipped, 15 frames in ")
    assert "skipped 2 that are already in the dataset: " in captured.err
    assert cli.status(COMMANDS, "prog", words) == 0
    assert capfd.readouterr().out.startswith("appended 0 episodes, 4 skipped, 0 frames")
    assert link.is_symlink()
    assert len(opened(first)) == 34


def test_dropped_recordings_are_told_and_kept_in_the_provenance(
    codec: Codec, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    for index in range(3):
        record(raw, index, steps=3)
    recordings = LocalDataset(raw)
    recordings.drop(recordings[1].uid, "the cup fell")
    words = [f"--dataset.dataset={raw}", "--dataset.codec=eepose_absolute"]
    words += ["--dataset.codec.image_size=[32,32]"]
    words += [f"--output_dir={out}", "--workers=0", f"--fps={FPS}"]
    said = "2 of 3 episodes: 1 dropped by edits (1 the cup fell)"
    assert cli.status(COMMANDS, "prog", ["convert", *words]) == 0
    assert said in capfd.readouterr().err
    record(raw, 3, steps=3)
    assert cli.status(COMMANDS, "prog", ["append", *words]) == 0
    assert "3 of 4 episodes: 1 dropped" in capfd.readouterr().err
    edits = Provenance.load(out).edits
    assert len(edits) == 2, "of the conversion and of the append"
    for each in edits:
        assert [(d.uid, d.why) for d in each.dropped] == [(recordings[1].uid, "the cup fell")]
    assert cli.status(COMMANDS, "prog", ["info", f"--dataset_root={out}"]) == 0
    shown = f"1 recordings by edits (1 the cup fell), log {edits[0].digest[:12]}"
    assert shown in capfd.readouterr().out


def test_on_s3_a_reader_finds_the_old_or_the_new(
    s3: Any, raw: LocalDataset, codec: Codec, tmp_path: Path
) -> None:
    uri = "s3://bucket/team/stack"
    convert_dataset(raw[:2], codec, uri, FPS, HERE)
    convert_dataset(raw[:2], codec, tmp_path / "out", FPS, HERE)
    old = contents(tmp_path / "out")
    append_dataset(raw, codec, tmp_path / "out", HERE)
    new = contents(tmp_path / "out")
    kills = 0
    while killed(appending(raw, codec, uri), requests, 4 + 9 * kills):
        kills += 1
        assert contents(storage.fetch(uri)) in (old, new)
    assert kills > 2
    assert contents(storage.fetch(uri)) == new
    assert not list((tmp_path / "cache" / "positronic" / "conversions").iterdir())
