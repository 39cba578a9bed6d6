from collections.abc import Callable
from pathlib import Path
from typing import Any

import configuronic as cfn
import pytest

from foundation.errors import UsageError
from positronic import cli
from positronic.cfg import ds
from positronic.dataset import DatasetWriter
from positronic.errors import DatasetError

Show = Callable[..., str]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two datasets of five episodes each under one directory."""
    for name in ("a", "b"):
        for i in range(5):
            with DatasetWriter(tmp_path / "raw" / name).new_episode() as episode:
                episode.set_static("name", f"{name}{i}")
                episode.set_static("eval.success", i > 2)
                episode.append("grip", 1.0, 0)
    return tmp_path / "raw"


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Show:
    """A command that prints the names of a dataset's episodes; flags to what it prints."""

    @cfn.config(dataset=ds.local)
    def command(dataset: Any) -> None:
        print(" ".join(episode["name"] for episode in dataset))

    def run(*flags: str) -> str:
        status = cli.status(command, "show", flags)
        printed = capsys.readouterr()
        return printed.out.strip() if status == 0 else printed.err.strip()

    return run


def test_local_joins_the_datasets_under_a_directory(
    raw: Path, monkeypatch: pytest.MonkeyPatch, show: Show
) -> None:
    monkeypatch.setenv("HOME", str(raw.parent))
    assert show("--dataset.path=~/raw") == "a0 a1 a2 a3 a4 b0 b1 b2 b3 b4"


def test_local_says_what_is_wrong(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such directory"):
        ds.local(path=str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="grip_open=2: expected 1 or 0"):
        ds.local(path=str(raw), grip_open=2)


def test_datasets_after_one_another(raw: Path, show: Show) -> None:
    joined = show(
        "--dataset=.concat",
        f"--dataset.second={raw}/b",
        "--dataset.first=@positronic.cfg.ds.local",
        f"--dataset.first.path={raw}/a",
        "--dataset.again=@positronic.cfg.ds.filtered",
        f"--dataset.again.dataset={raw}",
        "--dataset.again.where.name=[a1,b2]",
    )
    assert joined == "b0 b1 b2 b3 b4 a0 a1 a2 a3 a4 a1 b2"
    assert "nothing to concatenate" in show("--dataset=.concat")


def test_episodes_of_several_datasets_stay_apart(raw: Path) -> None:
    joined = ds.concat(a=str(raw / "a"), b=str(raw / "b"))
    assert len({episode.uid for episode in joined}) == 10
    sources = [Path(episode.meta["path"]) for episode in joined]
    assert [source.parts[-3] for source in sources] == ["a"] * 5 + ["b"] * 5
    assert len(set(sources)) == 10


def test_filtered_by_static_values(raw: Path, show: Show) -> None:
    filtered = ("--dataset=.filtered", f"--dataset.dataset.path={raw}")
    assert show(*filtered, "--dataset.where.eval.success=True") == "a3 a4 b3 b4"
    assert show(*filtered, "--dataset.where.eval.success=True", "--dataset.where.name=b3") == "b3"
    refused = show(*filtered, "--dataset.where.name=z")
    assert refused.startswith("show: error: no episode has name='z'; its values are 'a0' (1), 'a1'")
    assert "nothing to filter by" in show(*filtered)


def test_parts_nest(raw: Path, show: Show) -> None:
    part = ("--dataset.val_share=0.3", "--dataset.seed=7", f"--dataset.dataset={raw}")
    train = show("--dataset=.split.train", *part).split()
    val = show("--dataset=.split.val", *part).split()
    assert len(val) == 3
    assert sorted(train + val) == show(f"--dataset.path={raw}").split()
    nested = show(
        "--dataset=.filtered",
        "--dataset.where.eval.success=False",
        "--dataset.dataset=.split.train",
        "--dataset.dataset.val_share=0.3",
        "--dataset.dataset.seed=7",
        "--dataset.dataset.dataset=.local",
        f"--dataset.dataset.dataset.path={raw}",
    )
    assert nested.split() == [name for name in train if name[1] in "012"]


def test_a_share_of_the_episodes(raw: Path, show: Show) -> None:
    share = ("--dataset=.share", f"--dataset.dataset={raw}", "--dataset.share=0.4")
    assert len(show(*share).split()) == 4
    assert show(*share) == show(*share) != show(*share, "--dataset.seed=1")


def test_what_is_no_dataset_is_refused(show: Show) -> None:
    share = ("--dataset=.share", "--dataset.share=0.5")
    assert "--dataset.dataset makes a function, not a dataset; give .concat, .filtered" in show(
        *share, "--dataset.dataset=@positronic.geom.yaw"
    )
    assert "no dataset at " in show(*share, "--dataset.dataset=5")
    assert "(did you mean '.split.train'?)" in show(*share, "--dataset.dataset=.split.trian")


def test_a_declared_grip(raw: Path) -> None:
    episode = ds.local(path=str(raw), grip_open=0)[0]
    assert episode["grip_convention"] == {"open": 0.0, "closed": 1.0}
    assert episode["name"] == "a0"
