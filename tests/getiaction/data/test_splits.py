from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from getiaction.data.splits import held_out_natively, split_episodes
from getiaction.errors import GetiactionError


def dataset(*tasks: str) -> Any:
    """What is looked at of a dataset's metadata, an episode for each task named."""
    return SimpleNamespace(
        total_episodes=len(tasks), episodes={"tasks": [[t] if t else [] for t in tasks]}
    )


def test_a_tenth_of_ten_episodes_is_one_however_many_tasks_they_have() -> None:
    meta = dataset(*"abcdefghh")
    assert split_episodes(meta, None, 0.1) == ([0, 1, 2, 3, 4, 5, 6, 7], [8])


@pytest.mark.parametrize("share", [0.05, 0.1, 0.25, 0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("seed", range(8))
def test_the_share_is_of_all_episodes_and_of_each_task(share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tasks = [f"task {rng.zipf(1.5) % 9}" for _ in range(int(rng.integers(2, 60)))]
    sizes = Counter(tasks)
    if max(sizes.values()) == 1:
        return
    train, held_out = split_episodes(dataset(*tasks), None, share)
    assert train is not None
    assert sorted(train + held_out) == list(range(len(tasks)))
    assert {tasks[i] for i in train} == set(tasks)
    wanted = int(np.ceil(len(tasks) * share - 1e-9))
    room = sum(size - 1 for size in sizes.values())
    assert len(held_out) == min(wanted, room)
    given = Counter(tasks[i] for i in held_out)
    for task, size in sizes.items():
        # Not less than its share while another task gives more than its own.
        if given[task] + 1 < size * share:
            assert given[task] == size - 1
    for task in sizes:
        own = [i for i, name in enumerate(tasks) if name == task]
        assert sorted(set(own) & set(held_out)) == own[len(own) - given[task] :]


def test_one_task_is_split_as_lerobot_does() -> None:
    for count in range(2, 40):
        for share in (0.1, 0.2, 0.35, 0.5):
            _, held_out = split_episodes(dataset(*["a"] * count), None, share)
            assert len(held_out) == min(int(np.ceil(count * share)), count - 1)


def test_shares_are_not_moved_by_rounding() -> None:
    assert len(split_episodes(dataset(*["a"] * 100), None, 0.07)[1]) == 7


def test_of_chosen_episodes() -> None:
    assert split_episodes(dataset(*"abababab"), [0, 1, 2, 7], 0.5) == ([0, 1], [2, 7])
    assert split_episodes(dataset("", "", "a"), None, 0.3) == ([0, 2], [1])


def test_nothing_can_be_held_out_where_no_task_has_two() -> None:
    with pytest.raises(GetiactionError, match="each task has only one"):
        split_episodes(dataset(*"abc"), None, 0.1)
    assert split_episodes(dataset(*"abc"), None, 0.0) == (None, [])


def test_older_versions_rounded_up_for_each_task() -> None:
    assert held_out_natively(dataset(*"abcdefghh"), None, 0.1) == [0, 1, 2, 3, 4, 5, 6, 8]
    assert held_out_natively(dataset(*"aaab"), [0, 1, 2], 0.5) == [1, 2]
    assert held_out_natively(dataset(*"aaab"), None, 0.0) == []
