import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lerobot.datasets import LeRobotDataset, LeRobotDatasetMetadata
from lerobot.datasets.factory import resolve_delta_timestamps
from torch.utils.data import default_collate

from getiaction.data.frame_cache import CacheLimits
from getiaction.data.frames import video_backend
from getiaction.data.gather import CACHES, Cache, GatheredDataset
from getiaction.errors import GetiactionError
from getiaction.policies.lerobot import policy_config
from tests.getiaction.datasets import FPS, write

ACTIONS = {"action": [i / FPS for i in range(5)]}
# Deltas that reach back as well, on every kind of key, as Diffusion and VQ-BeT ask for them.
HISTORY = {
    "action": [i / FPS for i in range(-2, 4)],
    "observation.state": [-1 / FPS, 0.0],
    "observation.images.left": [-1 / FPS, 0.0],
    "observation.images.side": [0.0],
}


def opened(root: Path, deltas: dict[str, list[float]] | None, **options: Any) -> LeRobotDataset:
    return LeRobotDataset(
        "local/small",
        root=root,
        delta_timestamps=deltas,
        return_uint8=True,
        video_backend=video_backend(),
        **options,
    )


def assert_equal_batches(dataset: LeRobotDataset, gathered: GatheredDataset) -> None:
    generator = torch.Generator().manual_seed(3)
    order = torch.randperm(len(dataset), generator=generator).tolist()
    for begin in range(0, len(order), 7):
        rows = order[begin : begin + 7]
        expected = default_collate([dataset[i] for i in rows])
        actual = gathered.__getitems__(rows)
        assert list(actual) == list(expected)
        for key, value in expected.items():
            if isinstance(value, torch.Tensor):
                assert actual[key].dtype == value.dtype, key
                assert actual[key].shape == value.shape, key
                assert torch.equal(actual[key], value), key
            else:
                assert actual[key] == value, key


@pytest.fixture
def limits(tmp_path: Path) -> CacheLimits:
    return CacheLimits(directory=tmp_path / "frames")


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("deltas", [None, ACTIONS, HISTORY], ids=["none", "actions", "history"])
def test_batches_equal_lerobots_in_every_key(
    image_root: Path, deltas: dict[str, list[float]] | None, cache: Cache, limits: CacheLimits
) -> None:
    dataset = opened(image_root, deltas)
    gathered = GatheredDataset(dataset, cache, limits)
    assert gathered.decodes == (cache == "off")
    assert_equal_batches(dataset, gathered)


@pytest.mark.parametrize("cache", ["off", "memory", "disk"])
@pytest.mark.parametrize("episodes", [[2], [2, 0]])
def test_batches_equal_lerobots_for_some_episodes(
    image_root: Path, episodes: list[int], cache: Cache, limits: CacheLimits
) -> None:
    dataset = opened(image_root, ACTIONS, episodes=episodes)
    assert_equal_batches(dataset, GatheredDataset(dataset, cache, limits))


@pytest.fixture(scope="module")
def pushing_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One square camera and a reward, as TDMPC wants them."""
    root = tmp_path_factory.mktemp("pushing") / "dataset"
    options: Any = {"environment_state": False, "reward": True}
    return write(root, [11, 8], cameras=("left",), size=24, **options)


@pytest.mark.parametrize("policy", ["diffusion", "vqbet", "tdmpc"])
@pytest.mark.parametrize("cache", ["off", "memory"])
@pytest.mark.parametrize("episodes", [None, [1]])
def test_batches_equal_lerobots_for_every_policy(
    pushing_root: Path, policy: str, episodes: list[int] | None, cache: Cache
) -> None:
    meta = LeRobotDatasetMetadata("local/small", root=pushing_root)
    deltas = resolve_delta_timestamps(policy_config(policy, {}), meta)
    assert deltas is not None
    assert len(deltas["observation.images.left"]) > 1
    assert ("next.reward" in deltas) == (policy == "tdmpc")
    dataset = opened(pushing_root, deltas, episodes=episodes)
    assert_equal_batches(dataset, GatheredDataset(dataset, cache))


def test_what_does_not_fit_in_memory_is_decoded_when_needed(image_root: Path) -> None:
    dataset = opened(image_root, ACTIONS)
    small = CacheLimits(memory=1000)
    assert GatheredDataset(dataset, "auto", small).decodes
    with pytest.raises(
        GetiactionError, match=r"take 0.0 GiB, more than the limit of 0.0 in memory; "
    ):
        GatheredDataset(dataset, "memory", small)


def test_a_dataset_without_videos_needs_no_cache(state_root: Path, limits: CacheLimits) -> None:
    dataset = opened(state_root, ACTIONS)
    for cache in CACHES:
        assert_equal_batches(dataset, GatheredDataset(dataset, cache, limits))
    assert limits.directory is not None
    assert not limits.directory.exists()


def test_a_batch_costs_less_than_two_milliseconds(tmp_path: Path) -> None:
    dataset = opened(write(tmp_path / "dataset", [150]), {"action": [i / FPS for i in range(20)]})
    gathered = GatheredDataset(dataset)
    rows = torch.randint(0, len(gathered), (128,)).tolist()
    costs = []
    for _ in range(50):
        begun = time.perf_counter()
        gathered.__getitems__(rows)
        costs.append(time.perf_counter() - begun)
    assert min(costs) < 2e-3
