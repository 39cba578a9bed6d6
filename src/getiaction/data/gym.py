"""Rollouts as a dataset, so that Lightning's validation and test loops ask for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset


@dataclass(frozen=True)
class RolloutBatch:
    """Episodes to roll out beside each other: one environment for each seed.

    Args:
        gym: The :class:`getiaction.gyms.Gym`.
        seeds: What each episode's environment is reset with.
        name: How several gyms are told apart in metrics; empty where there is one.
        max_steps: Steps after which an episode ends; the gym's own limit if None.
        async_envs: Step the environments in processes of their own.
    """

    gym: Any
    seeds: tuple[int, ...]
    name: str = ""
    max_steps: int | None = None
    async_envs: bool = False


class GymDataset(Dataset[RolloutBatch]):
    """``num_rollouts`` episodes of ``gym``, in batches of at most ``num_envs``.

    Episode ``i`` has the seed ``start_seed + i``, however they are batched.
    """

    def __init__(
        self,
        gym: Any,
        num_rollouts: int,
        *,
        num_envs: int = 1,
        start_seed: int = 1000,
        name: str = "",
        max_steps: int | None = None,
        async_envs: bool = False,
    ) -> None:
        self.gym = gym
        seeds = range(start_seed, start_seed + num_rollouts)
        self._batches = [
            RolloutBatch(gym, tuple(seeds[at : at + num_envs]), name, max_steps, async_envs)
            for at in range(0, num_rollouts, num_envs)
        ]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> RolloutBatch:
        return self._batches[index]


def only(batch: Sequence[RolloutBatch]) -> RolloutBatch:
    """Collate the one batch of rollouts that a loader with ``batch_size=1`` has fetched."""
    (rollouts,) = batch
    return rollouts
