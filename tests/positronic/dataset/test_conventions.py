import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from positronic.dataset import DatasetWriter, DiskEpisode, Episode, LocalDataset
from positronic.dataset.conventions import OPEN_0, OPEN_1, Declared, adapted, grip_convention
from positronic.dataset.transforms import DerivedEpisode
from positronic.errors import EpisodeError

GRIPS = np.array([0.0, 0.1, 1 / 3, 1.0])
AFTER = 1_790_000_000 * 10**9
POSE, NEW_POSE = "robot_commands.pose", "robot_command.pose"


def recorded(root: Path, *signals: str, meta: dict[str, Any] | None = None, **static: Any) -> Path:
    """An episode with grips and poses, and other words in its meta if given."""
    with DatasetWriter(root).new_episode() as writer:
        for i, grip in enumerate(GRIPS):
            writer.append("grip", float(grip), i)
            writer.append("target_grip", np.float32(grip), i)
            for number, name in enumerate(signals):
                writer.append(name, np.full(7, number, dtype=np.float32), i)
        for name, value in static.items():
            writer.set_static(name, value)
    if meta is not None:
        (writer.path / "meta.json").write_text(json.dumps(meta))
    return writer.path


def written_by(version: str, created: int = AFTER, **more: Any) -> dict[str, Any]:
    name = "positronic.dataset.local_dataset.DiskEpisodeWriter"
    return {"created_ts_ns": created, "writer": {"version": version, "name": name, **more}}


@pytest.mark.parametrize(("here", "wanted"), [(POSE, NEW_POSE), (NEW_POSE, POSE)])
def test_a_signal_answers_to_its_other_name(tmp_path: Path, here: str, wanted: str) -> None:
    episode = DiskEpisode(recorded(tmp_path, here))
    found = adapted(episode, [wanted, "grip"], None)
    assert wanted not in episode.signals
    np.testing.assert_array_equal(found[wanted].values(), episode[here].values())
    assert found.uid == episode.uid
    assert found.meta == episode.meta
    assert adapted(episode, [here, "grip", "absent"], None) is episode


def test_where_both_names_are_there_each_means_what_it_says(tmp_path: Path) -> None:
    episode = adapted(DiskEpisode(recorded(tmp_path, POSE, NEW_POSE)), [POSE, NEW_POSE], None)
    assert float(episode[POSE].values()[0, 0]) == 0
    assert float(episode[NEW_POSE].values()[0, 0]) == 1


def test_a_grip_is_turned_when_the_recording_says_so(tmp_path: Path) -> None:
    episode = DiskEpisode(recorded(tmp_path, POSE, grip_convention={"open": 0.0, "closed": 1.0}))
    turned = adapted(episode, [NEW_POSE], OPEN_1)
    np.testing.assert_array_equal(turned["grip"].values(), 1.0 - GRIPS)
    target = turned["target_grip"].values()
    np.testing.assert_array_equal(target, np.float32(1) - GRIPS.astype(np.float32))
    assert target.dtype == np.float32
    assert turned["grip_convention"] == OPEN_1
    assert NEW_POSE in turned
    assert adapted(turned, [], OPEN_1) is turned
    back = adapted(turned, [], OPEN_0)["target_grip"]
    np.testing.assert_allclose(back.values(), GRIPS, atol=1e-7)
    assert adapted(episode, [], OPEN_0) is episode
    assert adapted(episode, [], None) is episode


def test_a_grip_in_other_units(tmp_path: Path) -> None:
    metres = {"open": 0.08, "closed": 0.0}
    episode = adapted(DiskEpisode(recorded(tmp_path, grip_convention=metres)), [], OPEN_1)
    np.testing.assert_allclose(episode["grip"].values(), GRIPS / 0.08)


def test_the_release_of_public_positronic_says_it(tmp_path: Path, fixture_root: Path) -> None:
    sim = {"simulation.mujoco_model_path": "franka_table.xml"}

    def states(meta: dict[str, Any], **static: Any) -> Any:
        return grip_convention(DiskEpisode(recorded(tmp_path, meta=meta, **static)))

    for episode in LocalDataset(fixture_root):
        assert grip_convention(episode) == OPEN_1
    assert states(written_by("0.2.1"), **sim) == OPEN_1
    assert states(written_by("0.3.0"), **sim) == OPEN_0
    assert states(written_by("0.4.1")) == OPEN_0
    said = {"grip_convention": {"open": 1, "closed": 0}}
    assert states(written_by("0.4.1"), **said) == OPEN_1, "its own words come first"


def test_what_says_nothing_is_left_as_it_is(tmp_path: Path) -> None:
    silent: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (written_by("0.2.1"), {}),  # a real gripper counts according to its make
        (written_by("0.3.0", git={"commit": "a060cbea"}), {}),
        (written_by("0.3.0", created=1_770_000_000 * 10**9), {}),  # a copy of something older
        (written_by("0.5.0.dev1"), {}),
        ({"created_ts_ns": 1, "writer": {"version": "0.4.0", "name": "another.Writer"}}, {}),
        ({}, {}),
    ]
    for meta, static in silent:
        episode = DiskEpisode(recorded(tmp_path, meta=meta, **static))
        assert grip_convention(episode) is None
        assert adapted(episode, [], OPEN_1) is episode


@pytest.mark.parametrize("stated", ["open", {"open": 1.0}, {"open": 1.0, "closed": 1.0}])
def test_a_statement_without_sense_is_refused(tmp_path: Path, stated: Any) -> None:
    with pytest.raises(EpisodeError, match="static 'grip_convention'.*; expected for example"):
        grip_convention(DiskEpisode(recorded(tmp_path, grip_convention=stated)))


def test_a_declaration_counts_where_the_recording_is_silent(tmp_path: Path) -> None:
    def declared(episode: Episode) -> Episode:
        return DerivedEpisode(episode, Declared(OPEN_0), keep=True)

    silent = declared(DiskEpisode(recorded(tmp_path, POSE, task="t")))
    turned = adapted(silent, [NEW_POSE], OPEN_1)
    np.testing.assert_array_equal(turned["grip"].values(), 1.0 - GRIPS)
    assert (turned["task"], turned.uid) == ("t", silent.uid)
    said = DiskEpisode(recorded(tmp_path, grip_convention={"open": 1.0, "closed": 0.0}))
    with pytest.raises(EpisodeError, match="its grip is 1 when open; leave out --grip_open"):
        adapted(declared(said), [], OPEN_1)
