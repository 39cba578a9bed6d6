"""Prefetch batches in threads: decoding releases the GIL, so worker processes are not needed."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice


def prefetched[Wanted, Made](
    make: Callable[[Wanted], Made], wanted: Iterable[Wanted], *, threads: int, ahead: int
) -> Iterator[Made]:
    """Yield ``make(w)`` for each ``w`` of ``wanted``, in order, while threads make the next ones.

    Args:
        make: Called in several threads concurrently.
        wanted: Iterated in the caller's thread.
        threads: Number of threads.
        ahead: Maximum number of items in progress, or finished but not consumed.
    """
    rest = iter(wanted)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")
    pending: deque[Future[Made]] = deque()
    try:
        for each in islice(rest, ahead):
            pending.append(pool.submit(make, each))
        while pending:
            made = pending.popleft().result()
            for each in islice(rest, 1):
                pending.append(pool.submit(make, each))
            yield made
    finally:
        pool.shutdown(cancel_futures=True)
