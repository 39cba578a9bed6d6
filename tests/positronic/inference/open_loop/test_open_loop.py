import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foundation import storage
from foundation.errors import FoundationError, StorageError, UsageError
from positronic import geom
from positronic.dataset import Dataset, DatasetWriter, Episode, LocalDataset
from positronic.dataset.trained_on import digests
from positronic.errors import DatasetError, EpisodeError, ServerGone, SessionError
from positronic.inference.open_loop.command import choose, mean_errors, open_loop
from positronic.inference.open_loop.tracks import Track, compare, frame_rate

FPS, STEPS, CHUNK = 20, 30, 8


def record(root: Path, episodes: int = 3, **left_out: bool) -> LocalDataset:
    writer = DatasetWriter(root)
    for number in range(episodes):
        rng = np.random.default_rng(number)
        with writer.new_episode() as episode:
            episode.set_static("task", f"Do number {number}.")
            episode.set_static("control_fps", FPS)
            episode.set_static("grip_convention", {"open": 1.0, "closed": 0.0})
            episode.set_static("mask.valid", number != 1)
            place = np.cumsum(rng.normal(0, 0.01, (STEPS + 1, 3)), axis=0)
            turns = geom.quat_from_yaw(np.cumsum(rng.normal(0, 0.05, STEPS + 1)))
            rows = {
                "robot_state.ee_pose": np.concatenate([place, turns], axis=1),
                "grip": rng.uniform(0, 1, STEPS + 1),
                "robot_commands.pose": np.concatenate([place[1:], turns[1:]], axis=1),
                "target_grip": rng.integers(0, 2, STEPS).astype(float),
            }
            for name, values in rows.items():
                for step, value in enumerate(values):
                    if name not in left_out:
                        episode.append(name, value, step * 10**9 // FPS)
    return LocalDataset(root)


class Recorded:
    """Answers with the recorded commands, or with the present pose: what is expected is known."""

    def __init__(self, dataset: Dataset, hold: bool = False, **meta: Any) -> None:
        self.dataset, self.hold = dataset, hold
        self.meta: dict[str, Any] = {"type": "recorded", "action_fps": FPS, **meta}
        self.closed = False
        self.tasks: list[str] = []

    def new_session(self, context: Mapping[str, Any] | None = None) -> "Answers":
        task = (context or {})["task"]
        self.tasks.append(task)
        return Answers(self, next(episode for episode in self.dataset if episode["task"] == task))

    def close(self) -> None:
        self.closed = True


class Answers:
    def __init__(self, policy: Recorded, episode: Episode) -> None:
        self.policy, self.episode, self.meta = policy, episode, policy.meta
        self.seen: list[dict[str, Any]] = []

    def infer(self, obs: Mapping[str, Any]) -> list[dict[str, Any]]:
        start = len(self.seen) * CHUNK
        self.seen.append(dict(obs))
        poses = self.episode.signals["robot_commands.pose"].values()[start : start + CHUNK]
        grips = self.episode.signals["target_grip"].values()[start : start + CHUNK]
        if self.policy.hold:
            poses, grips = [obs["robot_state.ee_pose"]] * CHUNK, [obs["grip"]] * CHUNK
        return [
            {
                "robot_command": {"type": "cartesian_pos", "pose": geom.pose_to_wire(pose)},
                "target_grip": float(grip),
                "timestamp": step / FPS,
            }
            for step, (pose, grip) in enumerate(zip(poses, grips, strict=True))
        ]

    def close(self) -> None:
        pass


def test_recorded_actions_have_no_error(tmp_path: Path) -> None:
    dataset = record(tmp_path / "raw")
    result = compare(dataset[0], 0, Recorded(dataset), None)
    assert len(result.times) == STEPS
    assert result.asked == pytest.approx([0.0, 0.4, 0.8, 1.2])
    for name, error in result.served.errors(result.recorded).items():
        assert error.max() < 1e-9, name


def test_a_recording_that_begins_late_is_read_at_its_own_steps(tmp_path: Path) -> None:
    writer = DatasetWriter(tmp_path / "raw")
    with writer.new_episode() as episode:
        episode.set_static("task", "Do it.")
        for step in range(2, STEPS):
            for name in ("robot_state.ee_pose", "robot_commands.pose"):
                episode.append(name, np.array([step, 0, 0, 1, 0, 0, 0.0]), step * 10**9 // 15)
            for name in ("grip", "target_grip"):
                episode.append(name, 1.0, step * 10**9 // 15)
    dataset = LocalDataset(tmp_path / "raw")
    result = compare(dataset[0], 0, Recorded(dataset, hold=True), 15)
    assert result.recorded.pose[:, 0].tolist() == list(range(2, STEPS))


def test_holding_still_is_the_baseline(tmp_path: Path) -> None:
    dataset = record(tmp_path / "raw")
    result = compare(dataset[0], 0, Recorded(dataset, hold=True), None)
    means = mean_errors([result])
    assert means["served"] == pytest.approx(means["hold"])
    assert means["hold"]["position"] > 5
    assert np.allclose(result.hold.pose[CHUNK], result.present.pose[CHUNK])
    assert np.allclose(result.hold.pose[CHUNK - 1], result.present.pose[0])


def test_errors_have_their_units() -> None:
    here = Track(np.array([[0, 0, 0, 1, 0, 0, 0]], dtype=float), np.array([1.0]))
    turned = geom.quat_from_yaw(np.radians(30.0))
    there = Track(np.array([[0.003, -0.004, 0, *-turned]]), np.array([0.25]))
    errors = {name: float(value[0]) for name, value in here.errors(there).items()}
    wanted = {"x": 3, "y": 4, "z": 0, "position": 5, "rotation": 30, "grip": 0.75}
    assert errors == pytest.approx(wanted)


def test_only_what_the_contract_names_is_shown_to_the_policy(tmp_path: Path) -> None:
    dataset = record(tmp_path / "raw", 1)
    seen: list[dict[str, Any]] = []

    class Watched(Recorded):
        def new_session(self, context: Mapping[str, Any] | None = None) -> Answers:
            answers = super().new_session(context)
            answers.seen = seen
            return answers

    contract = {"inputs": ["robot_state.ee_pose"], "fps": FPS}
    compare(dataset[0], 0, Watched(dataset, contract=contract), None)
    assert [set(obs) for obs in seen] == [{"robot_state.ee_pose", "task"}] * 4
    moment = dataset[0].signals["robot_state.ee_pose"].values()[CHUNK]
    assert np.allclose(seen[1]["robot_state.ee_pose"], moment)


def test_frame_rate_is_the_contracts_unless_given() -> None:
    contract = {"contract": {"fps": 15}, "action_fps": 10}
    assert frame_rate(contract, {"control_fps": 20}) == 15
    assert frame_rate(contract, {"control_fps": 20}, 5) == 5
    assert frame_rate({"action_fps": 10}, {"control_fps": 20}) == 10
    assert frame_rate({}, {"control_fps": 20}) == 20
    with pytest.raises(DatasetError, match="--fps"):
        frame_rate({}, {})


@pytest.mark.parametrize("lacking", ["robot_commands.pose", "target_grip", "robot_state.ee_pose"])
def test_an_episode_without_commands_is_named(tmp_path: Path, lacking: str) -> None:
    dataset = record(tmp_path / "raw", 1, **{lacking: True})
    with pytest.raises(EpisodeError, match=f"episode 0 has no {lacking}"):
        compare(dataset[0], 0, Recorded(dataset), None)


def test_a_signal_that_the_policy_wants_is_named(tmp_path: Path) -> None:
    dataset = record(tmp_path / "raw", 1)
    policy = Recorded(dataset, contract={"inputs": ["image.wrist"], "fps": FPS})
    with pytest.raises(EpisodeError, match=r"no image\.wrist that the policy reads"):
        compare(dataset[0], 0, policy, None)


def test_a_grip_that_counts_the_other_way_is_turned(tmp_path: Path) -> None:
    dataset = record(tmp_path / "raw", 1)
    plain, turned = (
        compare(dataset[0], 0, Recorded(dataset, contract={"grip": grip, "fps": FPS}), None)
        for grip in ({"open": 1.0, "closed": 0.0}, {"open": 0.0, "closed": 1.0})
    )
    assert len(set(plain.recorded.grip)) > 1
    np.testing.assert_array_equal(turned.recorded.grip, 1 - plain.recorded.grip)
    np.testing.assert_array_equal(turned.present.grip, 1 - plain.present.grip)


def test_other_commands_cannot_be_compared(tmp_path: Path) -> None:
    dataset = record(tmp_path / "raw", 1)

    class Joints(Recorded):
        def new_session(self, context: Mapping[str, Any] | None = None) -> Answers:
            answers = super().new_session(context)
            command = {"robot_command": {"type": "joint_pos"}, "target_grip": 1.0}
            answers.infer = lambda obs: [command]  # type: ignore[method-assign]
            return answers

    with pytest.raises(SessionError, match="'joint_pos' commands"):
        compare(dataset[0], 0, Joints(dataset), None)


def test_episodes_are_chosen_by_mask_number_or_index(tmp_path: Path) -> None:
    dataset = record(tmp_path / "raw")
    assert choose(dataset, None, None) == [0, 1, 2]
    assert choose(dataset, 2, None) == [0, 1]
    assert choose(dataset, [2, 0], None) == [2, 0]
    assert choose(dataset, None, "valid") == [0, 2]
    assert choose(dataset, 1, "valid") == [0]


@pytest.mark.parametrize("episodes", [0, -1, [], [3], [True], "two", 1.5])
def test_episodes_that_make_no_sense_are_refused(tmp_path: Path, episodes: Any) -> None:
    dataset = record(tmp_path / "raw")
    with pytest.raises(UsageError, match="0 to 2"):
        choose(dataset, episodes, None)


def test_an_index_outside_the_mask_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="0, 2"):
        choose(record(tmp_path / "raw"), [1], "valid")


def test_an_unknown_mask_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"mask\.test; .* are: valid"):
        choose(record(tmp_path / "raw"), None, "test")


def check(dataset: Dataset | str, policy: Recorded, out: Path, **given: Any) -> dict[str, Any]:
    config = open_loop.override(policy=policy, dataset=dataset, output_dir=str(out), **given)
    config.instantiate()
    document: dict[str, Any] = json.loads((out / "open_loop.json").read_text())
    return document


def test_figures_and_page_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = record(tmp_path / "raw")
    policy = Recorded(dataset)
    document = check(dataset, policy, tmp_path / "out", mask="valid")
    assert policy.closed
    assert policy.tasks == ["Do number 0.", "Do number 2."]
    assert [episode["index"] for episode in document["episodes"]] == [0, 2]
    assert document["steps"] == 2 * STEPS
    assert document["mean_absolute_error"]["served"]["position"] < 1e-9
    assert document["mean_absolute_error"]["hold"]["position"] > 5
    assert np.allclose(
        document["episodes"][0]["served"]["pose"][3][:3],
        np.array(document["episodes"][0]["recorded"]["pose"][3][:3]),
    )
    printed = capsys.readouterr().out
    assert "2 episodes, 60 steps, 8 inferences" in printed
    assert "position mm" in printed
    page = (tmp_path / "out" / "open_loop.html").read_text()
    assert page.count("<svg") == 2 * 6
    assert "://" not in page, "the page must need nothing else"
    assert "$" not in page.split("</style>")[1]


def test_episodes_of_the_training_are_said_to_be_no_test(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = record(tmp_path / "raw")
    told: dict[str, Any] = {
        "trained_on": {"dataset": "stack", "recordings": digests([dataset[2].uid, dataset[0].uid])},
        "checkpoint_path": "first/checkpoints/000200",
    }
    document = check(dataset, Recorded(dataset, **told), tmp_path / "all")
    assert document["trained_on"] == [0, 2]
    assert document["policy"]["trained_on"] == {"dataset": "stack"}
    note = "the policy was trained on 2 of these 3 episodes (dataset stack): the errors say"
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "warning" in x]
    assert line.startswith(f"warning: {note}")
    page = (tmp_path / "all" / "open_loop.html").read_text()
    assert f"<b>Not a test:</b> {note}" in page
    heading = "<span>policy recorded, checkpoint first/checkpoints/000200</span>"
    assert f"{heading}<span>dataset raw</span><span>3 episodes</span>" in page
    assert check(dataset, Recorded(dataset, **told), tmp_path / "new", episodes=[1])
    assert "Not a test" not in (tmp_path / "new" / "open_loop.html").read_text()
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("said", [7, {"dataset": 7}, {"dataset": "x", "recordings": ["a"]}])
def test_a_server_may_say_nonsense_of_its_training(tmp_path: Path, said: Any) -> None:
    dataset = record(tmp_path / "raw", 1)
    assert check(dataset, Recorded(dataset, trained_on=said), tmp_path / "out")["trained_on"] == []


def test_a_path_is_a_dataset_too(tmp_path: Path) -> None:
    policy = Recorded(record(tmp_path / "raw"))
    document = check(str(tmp_path / "raw"), policy, tmp_path / "out", episodes=1)
    assert [episode["index"] for episode in document["episodes"]] == [0]


def test_a_check_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    dataset = record(tmp_path / "raw", 1)
    check(dataset, Recorded(dataset), tmp_path / "out")
    with pytest.raises(StorageError, match="already has an open-loop result"):
        check(dataset, Recorded(dataset), tmp_path / "out")


def test_a_server_that_goes_away_costs_no_finished_episode(tmp_path: Path) -> None:
    dataset = record(tmp_path / "raw")

    class Leaving(Recorded):
        def new_session(self, context: Mapping[str, Any] | None = None) -> Answers:
            if len(self.tasks) == 2:
                raise ServerGone("the server went away")
            return super().new_session(context)

    policy = Leaving(dataset)
    with pytest.raises(FoundationError, match="went away"):
        check(dataset, policy, tmp_path / "out")
    document = json.loads((tmp_path / "out" / "open_loop.json").read_text())
    assert document["error"] == "the server went away"
    assert len(document["episodes"]) == 2
    assert "stopped early" in (tmp_path / "out" / "open_loop.html").read_text()
    assert policy.closed


def test_a_check_may_go_to_s3(s3: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = record(tmp_path / "raw", 1)
    policy = Recorded(dataset)
    place = "s3://bucket/check"
    config = open_loop.override(policy=policy, dataset=dataset, output_dir=place)
    config.instantiate()
    assert f"report: {place}/open_loop.html" in capsys.readouterr().out
    assert sorted(storage.listing(place)) == ["open_loop.html", "open_loop.json"]
    with pytest.raises(StorageError, match="s3://bucket/check exists already"):
        config.instantiate()
