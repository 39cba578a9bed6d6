import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from positronic.dataset import LocalDataset, load_all_datasets
from positronic.dataset.transforms import DerivedDataset
from positronic.errors import DatasetError, EpisodeError

from .conftest import record


def note(directory: Path, *records: dict[str, Any] | str) -> Path:
    """Add records to the edit log of a directory."""
    log = directory / "edits.jsonl"
    with log.open("a") as file:
        for each in records:
            file.write((each if isinstance(each, str) else json.dumps({"v": 1, **each})) + "\n")
    return log


def uid(path: Path) -> str:
    return str(json.loads((path / "meta.json").read_text())["uid"])


def tasks(root: Path) -> list[str]:
    return [episode["task"] for episode in load_all_datasets(root)]


def test_dropped_episodes_are_gone_and_undropped_ones_back(tmp_path: Path) -> None:
    a, b, c = (record(tmp_path, frames=1, task=task) for task in "abc")
    note(tmp_path, {"op": "drop", "ep": uid(a)}, {"op": "drop", "ep": uid(b)})
    note(tmp_path, {"op": "undrop", "ep": uid(a)}, "", {"op": "drop", "ep": "of another dataset"})
    assert tasks(tmp_path) == ["a", "c"]
    assert len(LocalDataset(tmp_path)) == 3, "recordings themselves are not changed"
    dataset = load_all_datasets(tmp_path)
    assert [e.uid for e in dataset] == [uid(a), uid(c)]
    note(c, {"op": "drop", "ep": uid(c)})
    assert tasks(tmp_path) == ["a"]
    note(tmp_path, {"op": "drop", "ep": uid(a)})
    with pytest.raises(DatasetError, match=r"every episode under .* was dropped by an edits.jsonl"):
        load_all_datasets(tmp_path)


def test_an_edit_of_two_that_nobody_named_is_refused(tmp_path: Path) -> None:
    paths = [record(tmp_path, frames=1, task=task) for task in "ab"]
    for path in paths:
        (path / "meta.json").unlink()
    named = {episode.uid for episode in LocalDataset(tmp_path)}
    (same,) = named
    assert tasks(tmp_path) == ["a", "b"]
    note(tmp_path, {"op": "set_static", "ep": same, "data": {"task": "c"}})
    dataset = load_all_datasets(tmp_path)
    assert dataset[0]["task"] == "c"
    with pytest.raises(
        EpisodeError, match="0 has the same. Give each a meta.json with its own uid"
    ):
        dataset[1]


def test_static_values_inner_logs_first_the_episodes_own_last(tmp_path: Path) -> None:
    path = record(tmp_path / "day" / "run", frames=1, task="old", robot="r")
    setting = {"op": "set_static", "ep": uid(path)}
    note(tmp_path / "day" / "run", setting | {"data": {"task": "inner", "x": 1, "y": 1, "z": 1}})
    note(tmp_path, setting | {"data": {"task": "outer", "x": 2, "y": 2}})
    note(path, setting | {"data": {"y": 3, "mesh": {"__bytes_b64__": "AAE="}}})
    (episode,) = load_all_datasets(tmp_path)
    expected = {"task": "outer", "robot": "r", "x": 2, "y": 3, "z": 1, "mesh": b"\x00\x01"}
    assert episode.static == expected
    assert episode["grip"][0] == (0.0, 0)
    assert (episode.uid, episode.meta["path"]) == (uid(path), str(path))
    assert tasks(tmp_path / "day") == ["inner"], "what lies above the path given is not read"


@pytest.mark.parametrize(
    "line",
    [
        '{"op": "rename", "v": 1, "ep": "u"}',
        '{"op": "drop", "v": 2, "ep": "u"}',
        '{"op": "set_static", "v": 1, "ep": "u", "data": {"task": null}}',
        '{"op": "drop", "v": 1, "ep": "u"',
        "[]",
    ],
)
def test_an_unknown_record_stops_the_reading(tmp_path: Path, line: str) -> None:
    path = record(tmp_path, frames=1)
    log = note(tmp_path, {"op": "drop", "ep": uid(path)}, line)
    with pytest.raises(DatasetError, match=f"{log}, line 2.*; read it with the version"):
        load_all_datasets(tmp_path)


def test_an_edit_that_hides_a_signal_is_refused_when_touched(tmp_path: Path) -> None:
    path = record(tmp_path, frames=1)
    note(path, {"op": "set_static", "ep": uid(path), "data": {"grip": 1}})
    (episode,) = load_all_datasets(tmp_path)
    assert len(episode.signals["grip"]) == 1
    with pytest.raises(EpisodeError, match=f"{path}: edits.jsonl: sets .* 'grip', which is a sig"):
        episode["task"]


def test_edits_are_written_into_the_episodes_own_log(tmp_path: Path) -> None:
    first, second = (record(tmp_path, frames=1, task=task) for task in "ab")
    dataset = LocalDataset(tmp_path)
    dataset.set_static(uid(first), {"task": "c", "operator": b"\x00", "score": 0.5})
    dataset.drop(uid(second))
    assert {path.parent for path in tmp_path.rglob("edits.jsonl")} == {first, second}
    (episode,) = load_all_datasets(tmp_path)
    assert (episode["task"], episode["operator"], episode["score"]) == ("c", b"\x00", 0.5)
    dataset.undrop(uid(second))
    assert tasks(tmp_path) == ["c", "b"]
    assert [each["task"] for each in dataset] == ["a", "b"], "recordings themselves stay"


def test_an_edit_that_cannot_be_is_not_written(tmp_path: Path) -> None:
    path = record(tmp_path, frames=1, task="a")
    dataset, signal = LocalDataset(tmp_path), next(iter(LocalDataset(tmp_path)[0].signals))
    with pytest.raises(DatasetError, match="no episode of .* has the uid 'other'"):
        dataset.drop("other")
    with pytest.raises(EpisodeError, match=f"static '{signal}': a signal of the episode has"):
        dataset.set_static(uid(path), {"score": 1, signal: 2})
    with pytest.raises(ValueError, match="None cannot be stored"):
        dataset.set_static(uid(path), {"score": None})
    assert not (path / "edits.jsonl").exists()
    log = note(path, '{"op": "trim", "v": 1}')
    with pytest.raises(DatasetError, match=r"edits.jsonl, line 1"):
        dataset.drop(uid(path))
    assert log.read_text().count("\n") == 1


def test_a_line_that_was_cut_is_not_continued(tmp_path: Path) -> None:
    path = record(tmp_path, frames=1, task="a")
    log = path / "edits.jsonl"
    whole = json.dumps({"op": "set_static", "v": 1, "ep": uid(path), "data": {"task": "b"}})
    log.write_text(whole)  # another program left the newline away
    LocalDataset(tmp_path).set_static(uid(path), {"task": "c"})
    assert tasks(tmp_path) == ["c"]
    assert log.read_text().splitlines()[0] == whole


def test_a_dataset_says_who_was_dropped_and_why(tmp_path: Path) -> None:
    paths = [record(tmp_path, frames=1, task=task) for task in "abcde"]
    dataset = LocalDataset(tmp_path)
    assert load_all_datasets(tmp_path).edits is None
    dataset.drop(uid(paths[0]), "spilled")
    dataset.drop(uid(paths[2]), "spilled\x1b[2J")
    dataset.drop(uid(paths[3]))
    note(tmp_path, {"op": "drop", "ep": uid(paths[4]), "why": {"of": "another program"}})
    opened = load_all_datasets(tmp_path)
    assert opened.edits is not None
    assert [(each.source, each.uid, each.why) for each in opened.edits.dropped] == [
        (str(paths[0]), uid(paths[0]), "spilled"),
        (str(paths[2]), uid(paths[2]), "spilled\\x1b[2J"),
        (str(paths[3]), uid(paths[3]), None),
        (str(paths[4]), uid(paths[4]), None),
    ]
    assert opened.edits.summary(len(opened)) == (
        "1 of 5 episodes: 4 dropped by edits (2 unexplained, 1 spilled, 1 spilled\\x1b[2J)"
    )
    views = [opened[:1], DerivedDataset(opened, lambda e: {"task": e["task"]}), opened + dataset]
    assert [view.edits for view in views] == [opened.edits] * 3


def test_the_digest_is_that_of_the_edits_that_apply(tmp_path: Path) -> None:
    def digest(root: Path) -> str:
        edits = load_all_datasets(root).edits
        assert edits is not None
        return edits.digest

    paths = [record(tmp_path / "raw", frames=1, task=task) for task in "ab"]
    note(tmp_path / "raw", {"op": "set_static", "ep": uid(paths[0]), "data": {"x": 1}})
    first = digest(tmp_path / "raw")
    shutil.copytree(tmp_path / "raw", tmp_path / "copy")
    assert digest(tmp_path / "copy") == first
    note(tmp_path / "raw", {"op": "drop", "ep": "of another dataset"})
    assert digest(tmp_path / "raw") == first
    note(tmp_path / "raw", {"op": "undrop", "ep": uid(paths[1])})
    second = digest(tmp_path / "raw")
    assert second != first
    both = load_all_datasets(tmp_path).edits
    assert both is not None
    assert both.digest not in (first, second)
