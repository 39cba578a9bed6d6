"""What a wrong directory holds, and which one was meant."""

from pathlib import Path
from typing import Any

import pytest

from foundation import storage
from positronic.cli.kinds import (
    CHECKPOINT,
    DATASET,
    RECORDINGS,
    ROLLOUTS,
    RUN,
    found_instead,
    kinds_of,
    unused,
)

FILES = (
    "raw/000000000000/000000000000/static.json",
    "rollouts/results.json",
    "rollouts/000000000000/000000000000/static.json",
    "lerobot/meta/info.json",
    "runs/one/checkpoints/000200/pretrained_model/config.json",
    "runs/two/checkpoints/000200/pretrained_model/config.json",
    "saved/pretrained_model/config.json",
    "other/file",
)


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """One directory of each kind."""
    root = str(tmp_path)
    if request.param == "s3":
        request.getfixturevalue("s3")
        root = "s3://bucket/demo"
    for name in FILES:
        storage.write_bytes(storage.join(root, name), b"{}")
    return root


def test_each_kind_is_known_by_its_files(place: str) -> None:
    found = {name: kinds_of(f"{place}/{name}") for name in storage.children(place)}
    assert found == {
        "raw": [RECORDINGS],
        "rollouts": [ROLLOUTS, RECORDINGS],
        "lerobot": [DATASET],
        "runs": [],
        "saved": [CHECKPOINT],
        "other": [],
    }
    assert kinds_of(f"{place}/runs/one") == [RUN]
    assert kinds_of(f"{place}/runs/one/checkpoints") == [RUN]
    assert kinds_of(f"{place}/runs/one/checkpoints/000200") == [CHECKPOINT]


@pytest.mark.parametrize(
    ("given", "wanted", "said"),
    [
        ("lerobot", DATASET, ""),
        ("rollouts", RECORDINGS, ""),
        ("nowhere", DATASET, ""),
        ("other", RUN, ""),
        ("raw", DATASET, "; it holds raw episodes, for `positronic-to-lerobot convert"),
        ("lerobot", RECORDINGS, "; it holds a LeRobot dataset, for `python -m positronic."),
        ("lerobot/meta", DATASET, "; did you mean {}/lerobot?"),
        ("", DATASET, "; did you mean {}/lerobot?"),
        ("runs", RUN, "; did you mean one of {0}/runs/one, {0}/runs/two?"),
    ],
)
def test_a_wrong_directory_leads_to_the_right_one(
    place: str, given: str, wanted: str, said: str
) -> None:
    found = found_instead(f"{place}/{given}", wanted)
    assert found.startswith(said.format(place))
    assert bool(found) == bool(said)
    # The command names the directory that was given.
    assert "`" not in found or f"={place}/{given}`" in found


def test_what_cannot_be_listed_adds_nothing(tmp_path: Path) -> None:
    (tmp_path / "closed").write_text("a file")
    assert found_instead(str(tmp_path / "closed"), RUN) == ""
    assert found_instead("ftp://host/data", RUN) == ""


def test_unused_counts_up(tmp_path: Path, s3: Any) -> None:
    assert unused(f"{tmp_path}/data") == f"{tmp_path}/data"
    (tmp_path / "data").mkdir()
    (tmp_path / "data-2").mkdir()
    assert unused(f"{tmp_path}/data") == f"{tmp_path}/data-3"
    assert unused("s3://bucket/data") == "s3://bucket/data"


@pytest.mark.parametrize(
    ("place", "wanted", "said"),
    [
        ("lerobot/pusht", DATASET, "; if it is a repository on the Hub, write hf://datasets/"),
        ("lerobot/act.v2", RUN, "; if it is a repository on the Hub, write hf://lerobot/act.v2"),
        ("./lerobot/pusht", DATASET, ""),
        ("/lerobot/pusht", DATASET, ""),
        ("a/b/c", DATASET, ""),
        ("here/data", RUN, ""),
    ],
)
def test_a_name_on_the_hub_is_answered_with_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, wanted: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here/data").mkdir(parents=True)
    found = found_instead(place, wanted)
    assert found.startswith(said) if said else "Hub" not in found
