"""Encodes every episode of a dataset, in this process or in several, in order."""

import os
import pickle
import shutil
import signal
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

from positronic.dataset import Dataset
from positronic.errors import DatasetError, PositronicError
from positronic.vendors.lerobot.encode_episode import (
    EncodedEpisode,
    Recipe,
    encode_episode,
    source_of,
)

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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer


def _work(index: int) -> Outcome:
    assert _job is not None
    dataset, recipe, scratch = _job
    return _attempt(dataset, index, recipe, scratch)


def _in_processes(
    dataset: Dataset, recipe: Recipe, scratch: Path, workers: int
) -> Generator[Outcome]:
    # Spawned, not forked: the parent holds torch's threads by then.
    pool = ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=_start, initargs=(dataset, recipe, scratch)
    )
    try:
        yield from pool.map(_work, range(len(dataset)))
    except BrokenProcessPool as error:
        raise DatasetError(
            "a conversion worker was killed, probably for want of memory; try --workers=1"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
