"""Encodes every episode of a dataset, in this process or in several, in order."""

import os
import pickle
import shutil
from collections.abc import Generator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from positronic.dataset import Dataset
from positronic.errors import DatasetError, PositronicError
from positronic.vendors.lerobot.encode_episode import (
    EncodedEpisode,
    Recipe,
    encode_episode,
    source_of,
)
from positronic.worker_pool import worker_pool

Outcome = EncodedEpisode | tuple[str, str]

_job: tuple[Dataset, Recipe, Path] | None = None


def encode_all(
    dataset: Dataset, recipe: Recipe, scratch: Path, workers: int | None
) -> Generator[Outcome]:
    """Yield each episode encoded, or ``(source, reason)`` where it had to be refused.

    ``workers`` processes share the work; by default one per processor if there are images, and
    this one alone if there are none, since starting a process takes longer than an episode.
    """
    images = any(feature["dtype"] == "video" for feature in recipe.codec.features.values())
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if images else 1
    workers = min(workers, len(dataset))
    if workers > 1 and _can_travel(dataset, recipe):
        yield from _in_processes(dataset, recipe, scratch, workers)
        return
    for index in range(len(dataset)):
        yield _attempt(dataset, index, recipe, scratch)


def _attempt(dataset: Dataset, index: int, recipe: Recipe, scratch: Path) -> Outcome:
    """Encode one episode; what it says of itself is its own fault, anything else stops the work."""
    source = f"episode {index}"
    folder = scratch / f"{index:06d}"
    try:
        episode = dataset[index]
        source = source_of(episode)
        return encode_episode(episode, recipe, folder)
    except PositronicError as error:
        shutil.rmtree(folder, ignore_errors=True)
        return source, str(error).removeprefix(f"episode {source}: ")


def _can_travel(dataset: Dataset, recipe: Recipe) -> bool:
    try:
        pickle.dumps((dataset, recipe))
    except (pickle.PicklingError, AttributeError, TypeError):
        return False  # derived by a local function, say: then it stays in this process
    return True


def _start(dataset: Dataset, recipe: Recipe, scratch: Path) -> None:
    global _job
    _job = dataset, recipe, scratch


def _work(index: int) -> Outcome:
    assert _job is not None
    dataset, recipe, scratch = _job
    return _attempt(dataset, index, recipe, scratch)


def _in_processes(
    dataset: Dataset, recipe: Recipe, scratch: Path, workers: int
) -> Generator[Outcome]:
    try:
        with worker_pool(workers, _start, dataset, recipe, scratch) as pool:
            yield from pool.map(_work, range(len(dataset)))
    except BrokenProcessPool as error:
        raise DatasetError(
            "a conversion worker was killed, probably for want of memory; try --workers=1"
        ) from error
