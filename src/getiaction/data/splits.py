"""Train/validation split by episodes: the last ones of each task are held out."""

import heapq
import math
from collections.abc import Sequence
from typing import Any

from getiaction.errors import GetiactionError

# Tolerance, so that 0.07 of 100 is 7 although 0.07 * 100 is slightly more.
_ROUNDING = 1e-9


def split_episodes(
    meta: Any, episodes: Sequence[int] | None, share: float
) -> tuple[list[int] | None, list[int]]:
    """Hold out ``ceil(n * share)`` of all n episodes, the last ones of each task.

    Each task contributes its share as nearly as possible, and keeps at least one episode for
    training; larger tasks contribute what small ones cannot. With a single task this is the rule of
    ``lerobot.datasets.factory.make_train_eval_datasets``, which rounds up for each task.

    Args:
        meta: LeRobot's metadata of the dataset.
        episodes: Episode indices to choose from; None means all.
        share: From 0 to below 1.

    Returns:
        Training and held-out episodes; None means all.

    Raises:
        GetiactionError: every task has only one episode.
    """
    chosen = None if episodes is None else list(episodes)
    if not share:
        return chosen, []
    groups = _by_task(meta, chosen)
    if all(len(members) == 1 for members in groups):
        raise GetiactionError(
            f"val_split={share} cannot hold out episodes: each task has only one, which is needed "
            "for training; leave val_split out, or give held-out episodes as val_dataset"
        )
    train: list[int] = []
    held_out: list[int] = []
    for members, count in zip(groups, _counts([len(g) for g in groups], share), strict=True):
        train += members[: len(members) - count]
        held_out += members[len(members) - count :]
    return train, held_out


def held_out_natively(meta: Any, episodes: Sequence[int] | None, share: float) -> list[int]:
    """Return the episodes that LeRobot, and our versions before this rule, hold out."""
    counted = [(group, math.ceil(len(group) * share)) for group in _by_task(meta, episodes)]
    return [episode for group, count in counted for episode in group[len(group) - count :]]


def _by_task(meta: Any, episodes: Sequence[int] | None) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    tasks = meta.episodes["tasks"]
    for episode in range(meta.total_episodes) if episodes is None else episodes:
        groups.setdefault(tasks[episode][0] if tasks[episode] else "", []).append(episode)
    return list(groups.values())


def _counts(sizes: list[int], share: float) -> list[int]:
    """Held-out episodes per task: its share, rounded by largest remainder."""
    counts = [min(math.floor(size * share + _ROUNDING), size - 1) for size in sizes]
    missing = math.ceil(sum(sizes) * share - _ROUNDING) - sum(counts)
    # Ties are resolved by the order of tasks.
    waiting = [(counts[t] - size * share, t) for t, size in enumerate(sizes)]
    heapq.heapify(waiting)
    while missing > 0 and waiting:
        above, task = heapq.heappop(waiting)
        if counts[task] < sizes[task] - 1:
            counts[task] += 1
            missing -= 1
            heapq.heappush(waiting, (above + 1, task))
    return counts
