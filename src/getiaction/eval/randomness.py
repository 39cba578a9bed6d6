"""Random numbers that belong to one episode, whatever runs beside it."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor


@dataclass
class RandomState:
    """States of the global random streams: Python's, NumPy's, torch's and its GPUs'."""

    python: Any
    numpy: Any
    torch: Tensor
    cuda: dict[int, Tensor]

    @classmethod
    def of_seed(cls, seed: int, devices: tuple[int, ...] = ()) -> Self:
        """The states that seeding each stream with ``seed`` gives, without touching any."""
        return cls(
            random.Random(seed).getstate(),
            np.random.RandomState(seed % 2**32).get_state(),
            torch.Generator().manual_seed(seed).get_state(),
            {
                index: torch.Generator(f"cuda:{index}").manual_seed(seed).get_state()
                for index in devices
            },
        )

    @classmethod
    def now(cls, devices: tuple[int, ...] = ()) -> Self:
        """The states as they are."""
        return cls(
            random.getstate(),
            np.random.get_state(),
            torch.get_rng_state(),
            {index: torch.cuda.get_rng_state(index) for index in devices},
        )

    def restore(self) -> None:
        """Put the global streams into these states."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.torch)
        for index, state in self.cuda.items():
            torch.cuda.set_rng_state(state, index)


class EpisodeRandomness:
    """The random streams of one episode; they go on where they were at the last :meth:`active`.

    Args:
        seed: The episode's seed.
        devices: Indices of the GPUs whose streams belong to the episode too.
    """

    def __init__(self, seed: int, devices: tuple[int, ...] = ()) -> None:
        self._devices = devices
        self._state = RandomState.of_seed(seed, devices)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let the global streams be the episode's inside; outside they never moved."""
        outside = RandomState.now(self._devices)
        self._state.restore()
        try:
            yield
            self._state = RandomState.now(self._devices)
        finally:
            outside.restore()


@contextmanager
def undisturbed(devices: tuple[int, ...] = ()) -> Iterator[None]:
    """Leave the global random streams as they were found."""
    outside = RandomState.now(devices)
    try:
        yield
    finally:
        outside.restore()


def devices_of(policy: Any) -> tuple[int, ...]:
    """Indices of the GPUs that a policy computes on."""
    if not isinstance(policy, torch.nn.Module):
        started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        return (torch.cuda.current_device(),) if started else ()
    found = {p.device.index for p in policy.parameters() if p.device.type == "cuda"}
    return tuple(sorted(index for index in found if index is not None))
