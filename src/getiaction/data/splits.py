"""Which episodes are trained on and which are held out, by LeRobot's rule."""

import math
from collections.abc import Sequence
from typing import Any

from getiaction.errors import GetiactionError


def split_episodes(
    meta: Any, episodes: Sequence[int] | None, share: float
) -> tuple[list[int] | None, list[int]]:
    """Hold out the last ``ceil(n * share)`` of the n episodes of each task.

    The rule is that of ``lerobot.datasets.factory.make_train_eval_datasets``.

    Args:
        meta: LeRobot's metadata of the dataset.
        episodes: Episode indices to choose from; None stands for all.
        share: From 0 to below 1.

    Returns:
        Training and held-out episodes; None stands for all.

    Raises:
        GetiactionError: nothing is left to train on.
    """
    chosen = None if episodes is None else list(episodes)
    if not share:
        return chosen, []
    by_task: dict[str, list[int]] = {}
    tasks = meta.episodes["tasks"]
    for episode in range(meta.total_episodes) if chosen is None else chosen:
        by_task.setdefault(tasks[episode][0] if tasks[episode] else "", []).append(episode)
    train: list[int] = []
    held_out: list[int] = []
    for members in by_task.values():
        count = math.ceil(len(members) * share)
        train += members[: len(members) - count]
        held_out += members[len(members) - count :]
    if not train:
        raise GetiactionError(f"val_split={share} leaves no episode to train on")
    return train, held_out
