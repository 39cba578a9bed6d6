"""Episode results: rewards, success and observations, collected step by step."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Episode:
    """Result of one episode of T steps.

    Args:
        seed: Seed with which the environment was reset.
        sum_reward: Sum of the rewards, in float64.
        max_reward: The largest reward.
        success: Whether the environment reported success at any step; None if it reports neither
            success nor failure (not measured).
        episode_length: T.
        data: If requested, ``action`` (T, A), ``reward`` (T,) float64, ``done`` (T,) bool,
            ``success`` (T,) bool or None if not measured, and ``observation``, a dict of tensors
            (T + 1, …).
        video: The video file, if requested.
    """

    seed: int
    sum_reward: float
    max_reward: float
    success: bool | None
    episode_length: int
    data: dict[str, Any] | None = field(default=None, compare=False, repr=False)
    video: Path | None = field(default=None, compare=False)


class Track:
    """Record of the episode of ``seed`` so far."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.over = False
        self.actions: list[Tensor] = []
        self.observations: list[dict[str, Tensor]] = []
        self._rewards: list[float] = []
        self._successes: list[bool | None] = []

    @property
    def success(self) -> bool | None:
        """Whether it has succeeded at any step; None if not reported."""
        return any(self._successes) if self._measured else None

    @property
    def _measured(self) -> bool:
        return any(success is not None for success in self._successes)

    def add(self, reward: float, *, success: bool | None, over: bool) -> None:
        """Add a step; ``success`` is None if not reported. No step may follow after ``over``."""
        assert not self.over
        self._rewards.append(float(reward))
        self._successes.append(success)
        self.over = over

    def see(self, observation: dict[str, Any], row: int) -> None:
        """Store the tensors of one row of a batch of observations."""
        tensors = {k: value[row] for k, value in observation.items() if isinstance(value, Tensor)}
        self.observations.append({key: value.clone() for key, value in tensors.items()})

    def episode(self, video: Path | None, *, keep: bool) -> Episode:
        """Return the result; with ``keep`` including the data of every step."""
        # torch's sum, as in LeRobot, for the same bits.
        reward = torch.tensor(self._rewards, dtype=torch.float64)
        return Episode(
            seed=self.seed,
            sum_reward=reward.sum().item(),
            max_reward=reward.max().item(),
            success=self.success,
            episode_length=len(reward),
            data=self._data(reward) if keep else None,
            video=video,
        )

    def _data(self, reward: Tensor) -> dict[str, Any]:
        done = torch.zeros(len(reward), dtype=torch.bool)
        done[-1] = True
        data: dict[str, Any] = {
            "action": torch.stack(self.actions),
            "reward": reward,
            "success": torch.tensor([bool(success) for success in self._successes])
            if self._measured
            else None,
            "done": done,
        }
        if self.observations:
            data["observation"] = {
                key: torch.stack([one[key] for one in self.observations])
                for key in self.observations[0]
            }
        return data
