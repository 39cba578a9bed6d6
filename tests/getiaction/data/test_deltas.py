from pathlib import Path
from typing import Any

import pytest
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.datasets import LeRobotDataset
from lerobot.datasets.factory import resolve_delta_timestamps

from getiaction.data import LeRobotDataModule, require_deltas, set_deltas
from getiaction.errors import GetiactionError
from getiaction.policies.lerobot import policy_config
from tests.getiaction.datasets import FPS

CHUNK = 5
ACT = policy_config("act", {"chunk_size": CHUNK, "n_action_steps": CHUNK})
DIFFUSION = policy_config("diffusion", {"horizon": 8, "n_action_steps": 4, "n_obs_steps": 2})
RIGHT = {"action": [i / FPS for i in range(CHUNK)]}


def opened(root: Path, **options: Any) -> LeRobotDataset:
    return LeRobotDataset("local/small", root=root, **options)


def test_spacing_of_another_rate_is_refused() -> None:
    """0.1 s fits the frames of a 50 fps dataset: every fifth would be trained on in silence."""
    given = {"action": [0.1 * i for i in range(10)]}
    needed = {"action": [0.02 * i for i in range(10)]}
    with pytest.raises(GetiactionError) as refused:
        require_deltas(given, needed, 50)
    assert str(refused.value) == (
        "delta_timestamps of 'action' are [0, 0.1, 0.2, ..., 0.9] (10 values), but the policy "
        "needs [0, 0.02, 0.04, ..., 0.18] (10 values) at 50 fps; leave delta_timestamps out "
        "to use the policy's"
    )


def test_rounded_numbers_are_the_same_times() -> None:
    require_deltas({"action": [0, 0.0667, 0.1333]}, {"action": [i / 15 for i in range(3)]}, 15)
    with pytest.raises(GetiactionError, match="of 'action' are"):
        require_deltas({"action": [0, 0.07, 0.13]}, {"action": [i / 15 for i in range(3)]}, 15)


def test_another_number_of_frames_is_refused() -> None:
    with pytest.raises(GetiactionError, match=r"are \[0, 0.1\], but the policy needs \[0\] at 10"):
        require_deltas({"action": [0, 0.1]}, {"action": [0]}, 10)


def test_what_is_missing_is_named(state_root: Path) -> None:
    data = LeRobotDataModule(root=state_root, delta_timestamps=RIGHT)
    with pytest.raises(
        GetiactionError,
        match=r"lack 'observation.state', of which the policy needs \[-0.06667, 0\] at 15 fps",
    ):
        data.prepare(DIFFUSION)


def test_what_the_policy_takes_no_history_of_is_named(state_root: Path) -> None:
    data = LeRobotDataModule(
        root=state_root, delta_timestamps={**RIGHT, "observation.state": [0.0]}
    )
    with pytest.raises(GetiactionError, match="have 'observation.state', of which the policy"):
        data.prepare(ACT)


def test_the_right_ones_are_taken(state_root: Path) -> None:
    data = LeRobotDataModule(root=state_root, delta_timestamps=RIGHT)
    data.prepare(ACT)
    assert next(iter(data.train_dataloader()))["action"].shape == (8, CHUNK, 8)


@pytest.mark.parametrize("config", [ACT, DIFFUSION], ids=["act", "diffusion"])
@pytest.mark.parametrize("episodes", [None, [2]])
def test_a_dataset_of_ones_own_gets_the_policys(
    state_root: Path, config: PreTrainedConfig, episodes: list[int] | None
) -> None:
    ours = opened(state_root, episodes=episodes)
    ours[0]  # it may have been used already
    set_deltas(ours, config)
    deltas = resolve_delta_timestamps(config, ours.meta)
    theirs = opened(state_root, episodes=episodes, delta_timestamps=deltas)
    assert ours.delta_timestamps == deltas
    for index in (0, 7, len(theirs) - 1):
        expected, actual = theirs[index], ours[index]
        assert list(actual) == list(expected)
        assert actual.pop("task") == expected.pop("task")
        for key, value in expected.items():
            assert torch.equal(actual[key], value), key
    set_deltas(ours, config)
    assert ours.delta_timestamps == deltas


def test_a_dataset_of_ones_own_with_others_is_refused(state_root: Path) -> None:
    dataset = opened(state_root, delta_timestamps={"action": [0.0, 1 / FPS]})
    with pytest.raises(GetiactionError, match="delta_timestamps of 'action' are"):
        set_deltas(dataset, ACT)
    with pytest.raises(GetiactionError, match="delta_timestamps of 'action' are"):
        LeRobotDataModule(dataset=dataset).prepare(ACT)
