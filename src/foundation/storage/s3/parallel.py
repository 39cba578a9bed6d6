"""Parallel transfers in threads; the first that fails cancels those not begun."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from foundation.storage.s3.client import PARALLEL


def in_parallel[T](action: Callable[[T], Any], items: Iterable[T]) -> None:
    """Call ``action`` on every item, some at a time.

    Raises:
        Exception: the first that any of them raised; what had not begun by then is left.
    """
    with ThreadPoolExecutor(PARALLEL) as pool:
        parts = [pool.submit(action, item) for item in items]
        try:
            for part in as_completed(parts):
                part.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
