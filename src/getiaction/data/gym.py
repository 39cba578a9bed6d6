"""GymDataset: rollouts as a dataset, so that Lightning's validation and test loops run them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from getiaction.gyms import Gym, as_gym


class RolloutBatch(NamedTuple):
    """Episodes to roll out in parallel: one environment per seed.

    A named tuple, because Lightning's mixed precision rebuilds dataclasses in a batch and rejects
    frozen ones.

    Attributes:
        gym: The :class:`getiaction.gyms.Gym`.
        seeds: Seed with which each episode's environment is reset.
        name: Name of the gym in metrics; empty if there is only one.
        max_steps: Steps after which an episode ends; the gym's own limit if None.
        async_envs: Step the environments in separate processes.
    """

    gym: Any
    seeds: tuple[int, ...]
    name: str = ""
    max_steps: int | None = None
    async_envs: bool = False


class GymDataset(Dataset[RolloutBatch]):
    """``num_rollouts`` episodes of ``gym``, in batches of at most ``num_envs``.

    Episode ``i`` has the seed ``start_seed + i``, independent of batching and distribution to
    processes: process ``rank`` of ``world_size`` runs every ``world_size``-th of them.
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
        world_size: int = 1,
        rank: int = 0,
    ) -> None:
        self.gym = gym
        self.name = name
        seeds = range(start_seed, start_seed + num_rollouts)[rank::world_size]
        # The same number of batches in every process, the last one possibly empty: DDP
        # synchronises buffers before each validation step.
        most = len(range(0, num_rollouts, world_size))
        self._batches = [
            RolloutBatch(gym, tuple(seeds[at : at + num_envs]), name, max_steps, async_envs)
            for at in range(0, most, num_envs)
        ]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> RolloutBatch:
        return self._batches[index]


def only(batch: Sequence[RolloutBatch]) -> RolloutBatch:
    """Collate the one batch of rollouts that a loader with ``batch_size=1`` has fetched."""
    (rollouts,) = batch
    return rollouts


def rollout_loader(dataset: GymDataset) -> DataLoader[RolloutBatch]:
    """A loader that yields each batch of rollouts without using the global RNG."""
    return DataLoader(
        dataset, batch_size=1, collate_fn=only, generator=torch.Generator().manual_seed(0)
    )


def named_gyms(gyms: Any) -> dict[str, Gym]:
    """Return gyms by their name in metrics; a single gym has the empty name.

    Args:
        gyms: None, anything that :func:`getiaction.gyms.as_gym` takes, a list of those, or a dict
            from names to those.

    Raises:
        GetiactionError: one of them is not a gym.
    """
    if gyms is None:
        return {}
    if isinstance(gyms, Mapping):
        named = {str(name): as_gym(gym) for name, gym in gyms.items()}
    else:
        named = {}
        for gym in map(as_gym, gyms if isinstance(gyms, (list, tuple)) else [gyms]):
            count = sum(name.partition("#")[0] == gym.name for name in named)
            named[f"{gym.name}#{count + 1}" if count else gym.name] = gym
    return {"": next(iter(named.values()))} if len(named) == 1 else named
