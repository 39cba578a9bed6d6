from pathlib import Path

import numpy as np
import pytest
import torch

from getiaction.data import LeRobotDataModule, Observation
from getiaction.policies.lerobot import policy_config


@pytest.fixture(scope="module")
def batch(image_root: Path) -> dict[str, object]:
    data = LeRobotDataModule(root=image_root, batch_size=4)
    data.prepare(policy_config("act", {"chunk_size": 3, "n_action_steps": 3}))
    found: dict[str, object] = next(iter(data.train_dataloader()))
    return found


def same(left: dict[str, object], right: dict[str, object]) -> bool:
    return left.keys() == right.keys() and all(
        torch.equal(value, torch.as_tensor(right[key]))
        if torch.is_tensor(value)
        else value == right[key]
        for key, value in left.items()
    )


def test_a_batch_there_and_back_is_the_same(batch: dict[str, object]) -> None:
    observation = Observation.from_batch(batch)
    assert observation.batch_size == 4
    assert observation.action.shape == (4, 3, 8)
    assert set(observation.images) == {"left", "side"}
    assert observation["task"] == batch["task"]
    assert set(observation.extra or {}) == {"observation.environment_state", "action_is_pad"}
    assert same(observation.to_batch(), batch)


def test_one_camera_without_a_name() -> None:
    images = torch.rand(2, 3, 4, 4)
    observation = Observation.from_batch({"observation.image": images})
    assert observation.images is images
    assert observation.extra is None
    assert same(observation.to_batch(), {"observation.image": images})


def test_as_a_dict_there_and_back(batch: dict[str, object]) -> None:
    observation = Observation.from_batch(batch)
    flat = observation.to_dict()
    assert {"action", "state", "images.left", "extra.action_is_pad"} <= flat.keys()
    assert "info" not in flat
    assert same(Observation.from_dict(flat).to_batch(), batch)
    nested = observation.to_dict(flatten=False)
    assert set(nested["images"]) == {"left", "side"}
    assert list(nested) == list(observation.keys()) == [name for name, _ in observation.items()]
    assert len(observation.values()) == len(nested)
    assert "state" in observation
    assert "next_reward" not in observation
    with pytest.raises(TypeError, match="unexpected keyword argument 'stat'"):
        Observation.from_dict({"stat": 1})


def test_as_arrays_there_and_back(batch: dict[str, object]) -> None:
    arrays = Observation.from_batch(batch).to_numpy()
    assert isinstance(arrays.images["left"], np.ndarray)
    assert same(arrays.to_torch().to("cpu").to_batch(), batch)
    assert Observation(state=torch.ones(2, 3)).to("meta").state.is_meta
    assert arrays.batch_size == 4
    with pytest.raises(ValueError, match="has no batch size"):
        _ = Observation().batch_size
