"""Measures of whole recordings, and those that stand out."""

import json
from pathlib import Path

import numpy as np
import pytest

from positronic import cli
from positronic.curation import Outlier, outliers, pictures, score_dataset
from positronic.curation.command import score, suggest
from positronic.dataset import LocalDataset, load_all_datasets

from . import recordings

WAYS = {
    1: "shift",
    3: "offset",
    5: "frozen",
    6: "grip",
    9: "wander",
    10: "goal",
    12: "black",
    14: "moved",
}
# What has to be among the first reasons of each.
EXPECTED = {
    "shift": "lag.robot_commands.pose",
    "offset": "turn.robot_commands.pose",
    "frozen": "frozen.image.front",
    "grip": "agreement.target_grip",
    "wander": "speed.robot_state.ee_pose",
    "goal": "ends.robot_state.ee_pose",
    "black": "black.image.front",
    "moved": "view.image.front",
}
COMMANDS = {"score": score, "suggest": suggest}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    root = tmp_path_factory.mktemp("spoiled")
    return root, recordings.dataset(root, WAYS, count=26)


def test_spoiled_ones_stand_out_for_the_right_reason(spoiled: tuple[Path, list[str]]) -> None:
    root, uids = spoiled
    ranked = outliers(score_dataset(LocalDataset(root)))
    assert len(ranked) == 26
    first = {outlier.scores.uid: outlier for outlier in ranked[: len(WAYS)]}
    assert set(first) == {uids[i] for i in WAYS}
    for index, way in WAYS.items():
        outlier = first[uids[index]]
        beyond = [reason.measure for reason in outlier.reasons if reason.deviation > 5]
        assert outlier.stands_out
        assert EXPECTED[way] in beyond, way
    assert [o.why for o in ranked[len(WAYS) :] if o.stands_out] == []


def test_measured_once_and_again_only_if_changed(
    spoiled: tuple[Path, list[str]], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = LocalDataset(spoiled[0])[:3]
    measured = score_dataset(part)
    assert len(list(cache.rglob("*.json"))) == 3

    def again(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(pictures, "measure", again)
    cached = score_dataset(part)
    for ours, theirs in zip(measured, cached, strict=True):
        assert ours.source == theirs.source
        np.testing.assert_equal(ours.values, theirs.values)
    next(cache.rglob("*.json")).write_text('{"values": 7}')
    with pytest.raises(AssertionError, match="decoded again"):
        score_dataset(part)


def test_processes_measure_the_same(spoiled: tuple[Path, list[str]], cache: Path) -> None:
    part = LocalDataset(spoiled[0])[:4]
    parallel = score_dataset(part, workers=2)
    for file in cache.rglob("*.json"):
        file.unlink()
    alone = score_dataset(part)
    assert [s.source for s in parallel] == [s.source for s in alone]
    np.testing.assert_equal([s.values for s in parallel], [s.values for s in alone])


def of(ranked: list[Outlier], uid: str) -> Outlier:
    (found,) = [outlier for outlier in ranked if outlier.scores.uid == uid]
    return found


def test_failures_duplicates_and_damage_are_known_without_comparison(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    for seed in range(6):
        recordings.record(root, seed)
    failed = recordings.record(root, 7, eval__success=False)
    twin = recordings.record(root, 3)
    damaged = LocalDataset(root)[0].meta["path"]
    (Path(damaged) / "grip.parquet").write_bytes(b"PAR1")
    ranked = outliers(score_dataset(LocalDataset(root)))
    assert ranked[0].scores.source == damaged
    assert "grip" in ranked[0].why
    assert of(ranked, failed).why.startswith("it failed")
    assert f"it moves exactly as {LocalDataset(root)[3].meta['path']}" in of(ranked, twin).why


def test_few_episodes_and_no_cameras_are_no_error(tmp_path: Path) -> None:
    from positronic.dataset import DatasetWriter

    for i in range(5):
        with DatasetWriter(tmp_path / "raw").new_episode() as episode:
            for step in range(30):
                episode.append("left.robot_state.q", np.full(6, np.sin(step / 9)), step * 10**7)
                episode.append("note", "text", step * 10**7)
            episode.append("once", i, 0)
    dataset = LocalDataset(tmp_path / "raw")
    values = score_dataset(dataset)[0].values
    assert values["duration_s"] == pytest.approx(0.29)
    assert values["path.left.robot_state.q"] > 0
    assert "gap.note" not in values
    assert [o.stands_out for o in outliers(score_dataset(dataset[:3]))] == [False] * 3
    assert outliers([]) == []


def test_the_command_prints_writes_and_drops(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "raw"
    uids = recordings.dataset(root, {2: "grip", 7: "frozen"}, count=12)
    words = [f"--dataset={root}", "--workers=0"]
    out = tmp_path / "made/scores.json"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cli.status(COMMANDS, "prog", ["score", *words, "--output=~/made/scores.json"]) == 0
    assert "000000000000/000000000011: " in capfd.readouterr().out
    assert [each["uid"] for each in json.loads(out.read_text())] == uids
    assert cli.status(COMMANDS, "prog", ["suggest", *words, "--drop=True"]) == 0
    said = capfd.readouterr()
    assert "2 of 12 episodes stand out" in said.out
    assert "000000000000/000000000002: the grip does not follow target_grip" in said.out
    kept = load_all_datasets(root)
    assert kept.edits is not None
    assert {each.uid for each in kept.edits.dropped} == {uids[2], uids[7]}
    assert any("frozen" in str(each.why) for each in kept.edits.dropped)
    assert cli.status(COMMANDS, "prog", ["suggest", *words]) == 0
    assert "0 of 10 episodes stand out" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["suggest", "--dataset=s3://bucket/raw", "--drop=True"], "give a local directory"),
        (["score", "--dataset=/nowhere"], "no dataset at /nowhere"),
        (["suggest", "--dataset=/tmp", "--workers=-1"], "--workers=-1"),
    ],
)
def test_wrong_words_are_one_line(
    words: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.status(COMMANDS, "prog", words) != 0
    said = capfd.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert message in said[0]
