"""Plan of action chunks: joins a new chunk to current ones by cross-fade or ensembling."""

from dataclasses import dataclass
from math import exp
from typing import Protocol

from positronic.policy.base import Action
from positronic.policy.blending import between, mean
from positronic.policy.chunk import Chunk


class Plan(Protocol):
    """Actions by control time, made from one or more chunks."""

    def at(self, t: float) -> Action:
        """Return the action in force at ``t``; the last one stays in force afterwards."""

    def over(self, t: float) -> bool:
        """Return whether the plan has ended at ``t``."""


@dataclass(frozen=True)
class CrossFade:
    """Interpolates from a plan to a chunk within ``seconds``, starting from the old plan."""

    old: Plan
    new: Chunk
    since: float
    seconds: float

    def at(self, t: float) -> Action:
        """Return the interpolated action; see `positronic.policy.blending.between`."""
        share = (t - self.since) / self.seconds
        if share >= 1:
            return self.new.at(t)
        return between(self.old.at(t), self.new.at(t), max(0.0, share))

    def over(self, t: float) -> bool:
        """Return whether the new chunk is used up."""
        return self.new.over(t)


@dataclass(frozen=True)
class Ensemble:
    """Temporal ensembling: the mean of the actions of all chunks for the same control time.

    The i-th oldest of them has weight ``exp(-coeff * i)``: algorithm 2 of Zhao et al., "Learning
    Fine-Grained Bimanual Manipulation with Low-Cost Hardware" (2023).
    """

    chunks: tuple[Chunk, ...]
    coeff: float

    def at(self, t: float) -> Action:
        """Return the mean over chunks not used up; see `positronic.policy.blending.mean`."""
        present = [chunk for chunk in self.chunks if not chunk.over(t)] or [self.chunks[-1]]
        weights = [exp(-self.coeff * i) for i in range(len(present))]
        return mean([chunk.at(t) for chunk in present], weights)

    def over(self, t: float) -> bool:
        """Return whether all chunks are used up."""
        return all(chunk.over(t) for chunk in self.chunks)


def joined(old: Plan, new: Chunk, t: float, cross_fade_s: float) -> Plan:
    """Plan that plays ``new`` from ``t``, with a cross-fade of ``cross_fade_s`` seconds."""
    if not cross_fade_s:
        return new
    if isinstance(old, CrossFade) and t >= old.since + old.seconds:
        old = old.new
    return CrossFade(old, new, t, cross_fade_s)
