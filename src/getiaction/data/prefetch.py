"""Prefetch batches in threads: decoding releases the GIL, and no worker process has to start."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice


def prefetched[Wanted, Made](
    make: Callable[[Wanted], Made], wanted: Iterable[Wanted], *, threads: int, ahead: int
) -> Iterator[Made]:
    """Yield ``make`` of each of ``wanted``, in order, while threads make the next ones.

    Args:
        make: Called in several threads at once.
        wanted: Taken by the caller's thread, as many as are begun.
        threads: How many of them.
        ahead: How many may be begun, or made and not taken yet.
    """
    rest = iter(wanted)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")
    begun: deque[Future[Made]] = deque()
    try:
        for each in islice(rest, ahead):
            begun.append(pool.submit(make, each))
        while begun:
            made = begun.popleft().result()
            for each in islice(rest, 1):
                begun.append(pool.submit(make, each))
            yield made
    finally:
        pool.shutdown(cancel_futures=True)
