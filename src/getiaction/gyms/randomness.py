"""Random state per episode: Python's, NumPy's and torch's global generators, swapped in and out.

Fast to import, for environment processes: torch's generators are included only if torch has been
imported.
"""

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np


@dataclass(frozen=True)
class _Stream:
    """One global random generator."""

    get: Callable[[], Any]
    set: Callable[[Any], Any]
    seeded: Callable[[int], Any]  # the state after seeding, computed without changing the stream


def _streams(devices: tuple[int, ...]) -> dict[str, _Stream]:
    found = {
        "python": _Stream(random.getstate, random.setstate, lambda s: random.Random(s).getstate()),
        "numpy": _Stream(
            np.random.get_state,
            np.random.set_state,
            lambda s: np.random.RandomState(s % 2**32).get_state(),
        ),
    }
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return found
    found["torch"] = _Stream(
        torch.get_rng_state,
        torch.set_rng_state,
        partial(_seeded_on, torch, "cpu"),
    )
    for index in devices:
        found[f"cuda:{index}"] = _Stream(
            partial(torch.cuda.get_rng_state, index),
            partial(torch.cuda.set_rng_state, device=index),
            partial(_seeded_on, torch, f"cuda:{index}"),
        )
    return found


def _seeded_on(torch: Any, device: str, seed: int) -> Any:
    return torch.Generator(device).manual_seed(seed).get_state()


class EpisodeRandomness:
    """Random streams of one episode, which continue between uses of :meth:`active`.

    Args:
        seed: Seed of Python's, NumPy's and torch's global streams.
        devices: Indices of the GPUs whose streams are included.
    """

    def __init__(self, seed: int, devices: tuple[int, ...] = ()) -> None:
        self._seed = seed
        self._devices = devices
        self._states: dict[str, Any] = {}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Swap in the episode's streams as the global ones, and restore these afterwards."""
        streams = _streams(self._devices)
        outside = {name: stream.get() for name, stream in streams.items()}
        try:
            for name, stream in streams.items():
                known = name in self._states
                stream.set(self._states[name] if known else stream.seeded(self._seed))
            yield
            self._states = {name: stream.get() for name, stream in streams.items()}
        finally:
            for name, state in outside.items():
                streams[name].set(state)


@contextmanager
def undisturbed(devices: tuple[int, ...] = ()) -> Iterator[None]:
    """Restore the global random streams afterwards."""
    streams = _streams(devices)
    outside = {name: stream.get() for name, stream in streams.items()}
    try:
        yield
    finally:
        for name, state in outside.items():
            streams[name].set(state)
