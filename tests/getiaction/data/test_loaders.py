import random
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.data_loader import prepare_data_loader
from lerobot.datasets import EpisodeAwareSampler
from torch.utils.data import DataLoader, TensorDataset

from getiaction.data import ResumableSampler
from getiaction.data.loaders import ResumableLoader, evaluation_loader, training_loader
from getiaction.train.exact_resume import random_state

SIZE = 6


def dataset(length: int) -> Any:
    return TensorDataset(torch.arange(length))


def loader(length: int, **options: Any) -> ResumableLoader:
    sampler = ResumableSampler([0], [length], shuffle=True, seed=5)
    return training_loader(dataset(length), sampler, SIZE, workers=0, **options)


def indices(batches: Any) -> list[list[int]]:
    return [batch[0].tolist() for batch in batches]


# Comes out even; a smaller last batch; one batch for two processes; fewer samples than a batch.
@pytest.mark.parametrize("length", [48, 45, 34, 6, 4])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_processes_get_what_accelerate_deals_them(length: int, world_size: int) -> None:
    for rank in range(world_size):
        sampler = EpisodeAwareSampler([0], [length], shuffle=True, seed=5)
        native = prepare_data_loader(
            DataLoader(dataset(length), SIZE, sampler=sampler),
            num_processes=world_size,
            process_index=rank,
            put_on_device=False,
        )
        ours = loader(length, world_size=world_size, rank=rank)
        for _ in range(2):
            expected = indices(native)
            assert indices(ours) == expected
            assert len(ours) == len(expected)


@pytest.mark.parametrize(("world_size", "rank"), [(1, 0), (2, 0), (2, 1)])
@pytest.mark.parametrize("taken", [0, 1, 2, 4, 5])
def test_a_loader_goes_on_where_its_state_was_taken(world_size: int, rank: int, taken: int) -> None:
    length = 30 * world_size - 1  # so that the end of an epoch is filled from its beginning
    placed = {"world_size": world_size, "rank": rank}
    whole = loader(length, **placed)
    epochs = [indices(whole) for _ in range(3)]
    assert [len(epoch) for epoch in epochs] == [5, 5, 5]
    stopped = loader(length, **placed)
    list(stopped)
    batches = iter(stopped)
    for _ in range(taken):
        next(batches)
    state = stopped.state_dict()
    # Until something is taken, it is the end of the epoch before.
    at = {"epoch": 1, "taken": taken} if taken else {"epoch": 0, "taken": 5}
    assert state == {**at, "first_epoch": 0}
    fresh = loader(length, **placed)
    fresh.load_state_dict(state)
    rest = epochs[1][taken:] + epochs[2]
    goes_on = indices(fresh) + indices(fresh)
    assert goes_on[: len(rest)] == rest


def test_other_epochs_than_the_states_are_whole() -> None:
    whole = loader(30)
    epochs = [indices(whole) for _ in range(3)]
    fresh = loader(30)
    fresh.load_state_dict({"epoch": 1, "taken": 3, "first_epoch": 0})
    sampler: Any = fresh.batch_sampler.sampler  # type: ignore[union-attr]
    sampler.set_epoch(2)
    assert indices(fresh) == epochs[2]
    sampler.set_epoch(1)
    assert indices(fresh) == epochs[1]


def test_the_epoch_is_asked_for_when_the_first_batch_is() -> None:
    """Lightning makes the iterator first and tells the epoch then."""
    whole = loader(30)
    list(whole)
    second = indices(whole)
    fresh = loader(30)
    batches = iter(fresh)
    sampler: Any = fresh.batch_sampler.sampler  # type: ignore[union-attr]
    sampler.set_epoch(1)
    assert indices(batches) == second


def test_evaluation_draws_no_global_random_numbers() -> None:
    def state() -> tuple[Any, ...]:
        found = random_state()
        return random.getstate(), np.random.get_state()[1].tolist(), found["torch"].tolist()  # type: ignore[index]

    before = state()
    assert indices(evaluation_loader(dataset(8), SIZE)) == [[0, 1, 2, 3, 4, 5], [6, 7]]
    assert state() == before
    list(loader(8))
    assert state() != before
