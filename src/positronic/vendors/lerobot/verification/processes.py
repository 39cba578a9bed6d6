"""Worker processes that share the reading of a dataset, or none where one is enough."""

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
    """How many processes: as many as asked for, or one per processor; UsageError for none."""
    if workers is not None and workers < 1:
        raise UsageError(f"--workers={workers}: give at least 1")
    return workers or len(os.sched_getaffinity(0))


@contextmanager
def processes(workers: int) -> Iterator[RunAll]:
    """A ``map`` over processes, or over none if one is enough.

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
            "a process that read the dataset was killed, probably for want of memory;"
            " try --workers=1"
        ) from error


def _one_thread() -> None:
    import cv2

    cv2.setNumThreads(1)  # the processes already share out the processors
