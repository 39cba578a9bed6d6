"""Progress bar (``tqdm``) on a terminal, plain lines at intervals in a log."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm

LOG_INTERVAL_S = 5.0


class _Line:
    """Replacement for tqdm's output stream in a file or a pipe: prints each update as one line."""

    def write(self, text: str) -> int:
        line = text.strip()
        if line:
            print(line, file=sys.stderr, flush=True)
        return len(text)

    def flush(self) -> None:
        sys.stderr.flush()


def bar(*, total: int | None, desc: str, unit: str = "it") -> Any:
    """Make a progress bar (a ``tqdm``) that counts to ``total``; close it after use."""
    if sys.stderr.isatty():
        return tqdm(total=total, desc=desc, unit=unit, dynamic_ncols=True)
    return tqdm(
        total=total,
        desc=desc,
        unit=unit,
        ascii=True,
        ncols=0,
        file=_Line(),
        position=0,  # below another bar tqdm would move a terminal's cursor
        mininterval=LOG_INTERVAL_S,
        maxinterval=LOG_INTERVAL_S,
    )


def track[T](
    items: Iterable[T], *, total: int | None = None, desc: str, unit: str = "it"
) -> Iterator[T]:
    """Yield from ``items`` and show how many have gone by."""
    with bar(total=total, desc=desc, unit=unit) as progress:
        for item in items:
            yield item
            progress.update()
