import pickle
from typing import Any

import pytest

from getiaction.data import GymDataset
from getiaction.data.gym import named_gyms, rollout_loader
from getiaction.errors import GetiactionError
from getiaction.gyms import GymnasiumGym, PushTGym


def seeds(**options: Any) -> list[tuple[int, ...]]:
    return [rollouts.seeds for rollouts in rollout_loader(GymDataset(None, 5, **options))]


def test_seeds_do_not_depend_on_how_they_are_batched_and_dealt() -> None:
    assert seeds() == [(1000,), (1001,), (1002,), (1003,), (1004,)]
    assert seeds(num_envs=2, start_seed=7) == [(7, 8), (9, 10), (11,)]
    assert seeds(num_envs=2, world_size=2, rank=0) == [(1000, 1002), (1004,)]
    assert seeds(num_envs=2, world_size=2, rank=1) == [(1001, 1003), ()]
    assert seeds(world_size=9, rank=8) == [()]


def test_gyms_are_told_apart_by_names() -> None:
    pusht = PushTGym()
    assert named_gyms(None) == {}
    assert named_gyms(pusht) == {"": pusht}
    assert named_gyms({"easy": pusht}) == {"": pusht}
    assert named_gyms({"easy": pusht, "hard": pusht}) == {"easy": pusht, "hard": pusht}
    several = named_gyms([pusht, "CartPole-v1", pusht])
    assert list(several) == [pusht.name, "CartPole-v1", f"{pusht.name}#2"]
    assert isinstance(several["CartPole-v1"], GymnasiumGym)
    with pytest.raises(GetiactionError, match="int is not an environment"):
        named_gyms([3])


def test_a_batch_reaches_other_processes() -> None:
    (batch,) = rollout_loader(GymDataset(PushTGym(), 2, num_envs=2, max_steps=9))
    sent = pickle.loads(pickle.dumps(batch))
    assert (sent.seeds, sent.name, sent.max_steps, sent.async_envs) == ((1000, 1001), "", 9, False)
