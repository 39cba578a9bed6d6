"""Datasets of versions whose quantiles were the episodes' mean: named, and mended in place."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foundation import storage
from foundation.errors import StorageError
from positronic import cli
from positronic.codec import Contract
from positronic.dataset import LocalDataset
from positronic.errors import ContractError
from positronic.vendors.lerobot import codecs
from positronic.vendors.lerobot.conversion import durable
from positronic.vendors.lerobot.conversion.append import append_dataset
from positronic.vendors.lerobot.conversion.pipeline import Options, convert_dataset
from positronic.vendors.lerobot.dataset import layout
from positronic.vendors.lerobot.training.preflight import dataset_contract
from positronic.vendors.lerobot.verification.repair import repair_statistics
from positronic.vendors.lerobot.verification.verify import verify, verify_dataset
from tests.positronic.vendors.lerobot.conversion.kills import files_in, killed, renames_to
from tests.positronic.vendors.lerobot.raw import FPS, record

pytestmark = [
    # The fork does nothing but repair, and takes no lock of another thread.
    pytest.mark.filterwarnings("ignore:This process .*fork:DeprecationWarning"),
]

HERE = Options(workers=0)
REWRITTEN = {"meta/stats.json", "meta/contract.json", "meta/provenance.json"}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> LocalDataset:
    root = tmp_path_factory.mktemp("raw")
    for index, steps in enumerate((11, 3, 6)):
        record(root, index, steps=steps, statics={"task": f"task {index}"})
    return LocalDataset(root)


def contents(root: Path) -> dict[str, bytes]:
    """Every file of a dataset by its name."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


def as_before(root: Path) -> None:
    """Give a dataset the statistics that versions up to November 2026 wrote: LeRobot's sum."""
    from lerobot.datasets.compute_stats import aggregate_stats
    from lerobot.datasets.io_utils import write_stats

    info = layout.read_info(root)
    (table,) = layout.episode_tables(root)
    stats: Any = None
    for episode in layout.read_episodes(root, table, info):
        own = {name: dict(each) for name, each in episode.stats.items()}
        stats = own if stats is None else aggregate_stats([stats, own])
    write_stats(stats, root)
    Contract.load(root / "meta").with_statistics(stats).save(root / "meta")
    provenance = root / "meta" / "provenance.json"
    document = json.loads(provenance.read_text())
    document.pop("pixel_counts", None)
    provenance.write_text(json.dumps(document, indent=2) + "\n")


@pytest.fixture(scope="module")
def converted(raw: LocalDataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("converted")
    convert_dataset(raw, codecs.eepose_state(), root / "state", FPS, HERE)
    convert_dataset(raw, codecs.joints_absolute(image_size=(32, 48)), root / "video", FPS, HERE)
    return {"state": root / "state", "video": root / "video"}


@pytest.fixture
def copied(converted: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    def copy(name: str) -> Path:
        shutil.copytree(converted[name], tmp_path / "data" / name)
        return tmp_path / "data" / name

    return copy


def run(root: object, *words: str) -> int:
    words = ("verify", f"--dataset_root={root}", "--workers=1", *words)
    return cli.status({"verify": verify}, "positronic-to-lerobot", list(words))


@pytest.mark.parametrize("name", ["state", "video"])
def test_the_command_names_and_mends_it(
    copied: Callable[[str], Path], name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    root = copied(name)
    right = contents(root)
    as_before(root)
    old = contents(root)
    assert old["meta/stats.json"] != right["meta/stats.json"]
    assert run(root) == 1
    told = capfd.readouterr().out
    assert "fault: meta/stats.json: action: q01[" in told
    if name == "video":
        assert "observation.images.left: its quantiles are the means of the episodes'" in told
    assert f"verify --dataset_root={root} --repair=statistics`" in told
    assert contents(root) == old

    assert run(root, "--repair=statistics") == 0
    assert f"{root} is valid" in capfd.readouterr().out
    mended = contents(root)
    assert mended.keys() == old.keys()
    assert {file for file in mended if mended[file] != old[file]} == REWRITTEN
    provenance = json.loads(mended["meta/provenance.json"])
    (note,) = provenance.pop("repaired")
    cameras = ["observation.images.left", "observation.images.side"] if name == "video" else []
    assert (note["what"], note["decoded"]) == ("statistics", cameras)
    if name == "state":
        assert mended["meta/stats.json"] == right["meta/stats.json"]
        assert mended["meta/contract.json"] == right["meta/contract.json"]
    else:
        # Of what is decoded, which is not quite what was encoded.
        now, then = (json.loads(c["meta/stats.json"]) for c in (mended, right))
        for feature, stats in then.items():
            for statistic, value in stats.items():
                lossy = feature in cameras and statistic.startswith("q")
                found = np.array(now[feature][statistic])
                np.testing.assert_allclose(found, value, rtol=1e-12, atol=0.1 * lossy)
    assert dataset_contract(root, None) == Contract.load(root / "meta")
    assert sorted(path.name for path in root.parent.iterdir()) == [name]
    # It is whole, so a second time nothing is done.
    assert run(root, "--repair=statistics") == 0
    assert contents(root) == mended


def test_what_is_damaged_otherwise_is_left_alone(
    copied: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    root = copied("state")
    as_before(root)
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"total_tasks": 7}))
    before = contents(root)
    assert run(root, "--repair=statistics") == 1
    captured = capfd.readouterr()
    assert "nothing was repaired: there are faults other than statistics" in captured.err
    assert "total_tasks is 7" in captured.out
    assert contents(root) == before
    assert run(root, "--repair=everything") != 0
    assert "--repair=everything: expected statistics" in capfd.readouterr().err


def test_missing_statistics_are_made_anew(
    copied: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    root = copied("state")
    right = contents(root)
    (root / "meta/stats.json").unlink()
    assert run(root, "--repair=statistics") == 0
    assert contents(root)["meta/stats.json"] == right["meta/stats.json"]


def test_killed_at_any_step_it_is_the_old_or_the_new(copied: Callable[[str], Path]) -> None:
    root = copied("state")
    as_before(root)
    old = contents(root)
    kills = 0
    for step in (1, 8, 15, 22, 29, 36, 60):
        if killed(lambda: repair_statistics(root, 1), files_in(root.parent), step):
            kills += 1
        found = contents(root)
        assert found["meta/stats.json"] == old["meta/stats.json"] or run(root) == 0
    assert kills > 3
    repair_statistics(root, 1)
    assert run(root) == 0
    assert sorted(path.name for path in root.parent.iterdir()) == ["state"]


@pytest.mark.parametrize("by", ["repair", "convert"])
def test_killed_between_two_renames_nothing_is_lost(
    raw: LocalDataset, copied: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """Where directories cannot be swapped, the only copy lies in the work_dir for a moment."""
    monkeypatch.setattr(durable, "exchange", lambda one, other: False)
    root = copied("state")
    as_before(root)
    assert killed(lambda: repair_statistics(root, 1), renames_to(root))
    assert not root.exists()
    if by == "convert":
        with pytest.raises(StorageError, match="already exists"):
            convert_dataset(raw[:1], codecs.eepose_state(), root, FPS, HERE)
    assert run(root, "--repair=statistics") == 0
    assert len(contents(root)) == len(contents(copied("video").parent / "state"))
    assert sorted(path.name for path in root.parent.iterdir()) == ["state", "video"]


@pytest.mark.parametrize("name", ["state", "video"])
def test_files_that_are_symbolic_links(
    raw: LocalDataset, copied: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    """As in the cache of the hub, whose links are relative to where they lie."""
    root = copied(name)
    as_before(root)
    linked = tmp_path / "snapshots" / "abc"
    for file in contents(root):
        (linked / file).parent.mkdir(parents=True, exist_ok=True)
        (linked / file).symlink_to(os.path.relpath(root / file, (linked / file).parent))
    before = contents(root)
    assert run(linked, "--repair=statistics") == 0
    codec = codecs.joints_absolute(image_size=(32, 48))
    record(tmp_path / "more", 7, steps=5)
    appended = LocalDataset(tmp_path / "more")
    append_dataset(appended, codecs.eepose_state() if name == "state" else codec, linked, HERE)
    assert verify_dataset(linked, workers=1).faults == ()
    assert contents(root) == before


def test_a_read_only_dataset_is_refused_before_the_work(
    copied: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    root = copied("state")
    as_before(root)
    folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        if os.access(root, os.W_OK):  # root may do anything, and then it is simply mended
            assert run(root, "--repair=statistics") == 0
        else:
            assert run(root, "--repair=statistics") == 1
            assert "permission denied" in capfd.readouterr().err
        assert sorted(path.name for path in root.parent.iterdir()) == ["state"]
    finally:
        for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
            folder.chmod(0o755)
    assert run(root, "--repair=statistics") == 0


def test_appending_to_an_older_one_mends_it(
    raw: LocalDataset, copied: Callable[[str], Path], tmp_path: Path
) -> None:
    root = copied("video")
    as_before(root)
    record(tmp_path / "more", 7, steps=5)
    codec = codecs.joints_absolute(image_size=(32, 48))
    append_dataset(LocalDataset(tmp_path / "more"), codec, root, HERE)
    assert verify_dataset(root, workers=1).faults == ()
    document = json.loads((root / "meta/provenance.json").read_text())
    cameras = ["observation.images.left", "observation.images.side"]
    assert document["appended"][0]["decoded"] == cameras
    assert list(document["pixel_counts"]) == cameras


def test_a_bucket_is_mended_too(
    s3: Any, copied: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    root = copied("state")
    right = contents(root)
    as_before(root)
    storage.publish(root, "s3://bucket/team/old")
    assert run("s3://bucket/team/old") == 1
    assert run("s3://bucket/team/old", "--repair=statistics") == 0
    found = contents(storage.fetch("s3://bucket/team/old"))
    assert found["meta/stats.json"] == right["meta/stats.json"]
    assert found.keys() == right.keys()


def test_what_lerobot_wrote_is_noted_and_mended(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Another robot's: 3 joints, a matrix, 10 fps; LeRobot averages quantiles as well."""
    from lerobot.datasets import LeRobotDataset

    vector = {"dtype": "float32", "names": None}
    features = {
        "observation.state": vector | {"shape": (3,)},
        "observation.tactile": vector | {"shape": (2, 4)},
        "action": vector | {"shape": (1,)},
    }
    root = tmp_path / "native"
    native = LeRobotDataset.create("local", fps=10, features=features, root=root, use_videos=False)
    rng = np.random.default_rng(0)
    for episode, length in enumerate((30, 20)):
        for _ in range(length):
            native.add_frame(
                {
                    "observation.state": rng.normal(10 * episode, 1, 3).astype(np.float32),
                    "observation.tactile": rng.normal(size=(2, 4)).astype(np.float32),
                    "action": rng.normal(size=1).astype(np.float32),
                    "task": "press",
                }
            )
        native.save_episode()
    native.finalize()
    assert run(root) == 0
    told = capfd.readouterr().out
    assert "note: meta/stats.json: observation.state: q" in told
    assert "LeRobot takes the episodes' mean" in told
    before = contents(root)
    assert run(root, "--repair=statistics") == 0
    assert "LeRobot takes the episodes' mean" not in capfd.readouterr().out
    after = contents(root)
    assert {file for file in after if after[file] != before[file]} == {"meta/stats.json"}
    stats = json.loads(after["meta/stats.json"])
    assert np.shape(stats["observation.tactile"]["q10"]) == (4,)
    assert len(LeRobotDataset("local", root=root)) == 50


def test_a_checkpoint_keeps_the_statistics_it_was_trained_on(
    copied: Callable[[str], Path],
) -> None:
    """The mended dataset's contract is another one: nothing goes on with it unnoticed."""
    root = copied("state")
    as_before(root)
    trained = dataset_contract(root, None)
    assert trained is not None
    repair_statistics(root, 1)
    mended = dataset_contract(root, None)
    assert mended is not None
    with pytest.raises(ContractError, match="stats_digest"):
        mended.require_same(trained, "the dataset", "the checkpoint")
