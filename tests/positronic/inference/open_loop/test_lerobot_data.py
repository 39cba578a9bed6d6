"""Open loop on datasets of other robots: the recorded actions beside those of a real policy."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foundation.errors import UsageError
from positronic.errors import DatasetError, SessionError
from positronic.inference.open_loop.command import open_loop
from positronic.inference.open_loop.lerobot_data import LeRobotEpisodes, compare
from positronic.vendors.lerobot.serving.policy import load_policy
from tests.positronic.vendors.lerobot.native_dataset import (
    MOTORS,
    TINY_ACT,
    lerobot_chunk,
    observation,
    write_so100,
)
from tests.positronic.vendors.lerobot.training.training_commands import command

MODEL = "run/checkpoints/last/pretrained_model"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of videos, and a policy trained on it."""
    place = tmp_path_factory.mktemp("open_loop")
    data = write_so100(place / "so100", fps=50)
    policy = ["--policy=act", *(f"--policy.{name}={value}" for name, value in TINY_ACT.items())]
    where = [f"--dataset_root={data}", "--run_name=run", f"--output_dir={place}"]
    fast = ["--steps=1", "--batch_size=2", "--num_workers=0", "--cache=off", "--device=cpu"]
    assert command(*where, *policy, *fast) == 0
    return place


def test_served_actions_are_lerobots_on_the_recorded_frames(place: Path) -> None:
    episodes = LeRobotEpisodes(str(place / "so100"))
    result = compare(episodes, 1, load_policy(str(place / "run"), device="cpu"))
    assert result.recorded.shape == result.served.shape == (11, 6)
    assert result.asked == [0, 0.08, 0.16]  # 4 actions at 50 per second
    expected = [
        lerobot_chunk(place / MODEL, observation(place / "so100", 14 + step))[:4]
        for step in (0, 4, 8)
    ]
    np.testing.assert_allclose(result.served, np.concatenate(expected)[:11], atol=1e-5, rtol=0)
    rows = [episodes.dataset[14 + i]["action"].numpy() for i in range(11)]
    np.testing.assert_array_equal(result.recorded, np.stack(rows))
    np.testing.assert_array_equal(result.hold[4:8], np.repeat(result.recorded[3:4], 4, axis=0))


def test_figures_and_page_are_written(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = load_policy(str(place / "run"), device="cpu")
    open_loop(policy=policy, dataset=str(place / "so100"), output_dir=str(tmp_path / "out"))
    said = capsys.readouterr()
    assert "2 episodes, 25 steps, 7 inferences" in said.out
    assert "trained on the dataset so100" in said.err
    document = json.loads((tmp_path / "out/open_loop.json").read_text())
    errors = document["mean_absolute_error"]
    assert list(errors["served"]) == MOTORS
    curves = document["episodes"]
    difference = np.concatenate([np.subtract(e["served"], e["recorded"]) for e in curves])
    np.testing.assert_allclose(list(errors["served"].values()), abs(difference).mean(0), rtol=1e-5)
    page = (tmp_path / "out/open_loop.html").read_text()
    assert all(motor in page for motor in MOTORS)
    for wrong in ({"mask": "valid"}, {"fps": 15}):
        with pytest.raises(UsageError, match="is a LeRobot dataset, which has no masks and its"):
            open_loop(
                policy=policy,
                dataset=str(place / "so100"),
                output_dir=str(tmp_path / "other"),
                **wrong,
            )
    assert not (tmp_path / "other").exists()


class Told:
    """A policy that says of itself what it is told to, and answers so."""

    def __init__(self, contract: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        self.meta: dict[str, Any] = {"contract": dict(contract)}
        self.answer = dict(answer)

    def new_session(self, context: Mapping[str, Any] | None = None) -> "Told":
        return self

    def infer(self, obs: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [self.answer]

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("contract", "answer", "error", "says"),
    [
        ({"inputs": ["grip"], "fps": 50}, {}, DatasetError, "without grip, which the policy"),
        ({}, {}, DatasetError, "without a contract"),
        ({"inputs": ["observation.state"], "fps": 30}, {}, DatasetError, "50 rows per second, but"),
        (
            {"inputs": ["observation.state"], "fps": 50},
            {"action": np.zeros(7)},
            SessionError,
            "of 7 numbers; expected 'action' vectors of 6",
        ),
        (
            {"inputs": ["observation.state"], "fps": 50},
            {"robot_command": {"type": "joint_pos"}},
            SessionError,
            "answers with robot_command of 0 numbers",
        ),
    ],
)
def test_what_does_not_belong_together_is_refused(
    place: Path, contract: Any, answer: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        compare(LeRobotEpisodes(str(place / "so100")), 0, Told(contract, answer))
