"""Worker processes that read a dataset in parallel, or none for one worker."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from foundation.errors import UsageError
from foundation.worker_pool import worker_pool
from positronic.errors import DatasetError

type RunAll = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


def number_of(workers: int | None) -> int:
    """Number of processes: as given, or one per CPU; UsageError below 1."""
    if workers is not None and workers < 1:
        raise UsageError(f"--workers={workers}: expected 1 or more")
    return workers or len(os.sched_getaffinity(0))


@contextmanager
def processes(workers: int) -> Iterator[RunAll]:
    """Yield a ``map`` over worker processes, or the plain ``map`` for one worker.

    Raises:
        DatasetError: one of them was killed.
    """
    if workers == 1:
        yield map
        return
    try:
        with worker_pool(workers, _one_thread) as pool:
            yield pool.map
    except BrokenProcessPool as error:
        raise DatasetError(
            "a process that read the dataset was killed, probably out of memory; try --workers=1"
        ) from error


def _one_thread() -> None:
    import cv2

    cv2.setNumThreads(1)  # there is already a process per CPU
