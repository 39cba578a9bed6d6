"""Progress of an S3 transfer: a bar on a terminal, a line every ten seconds elsewhere."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

MIB = 2**20
LINE_EVERY_S = 10.0
# Smaller transfers end before one could read the line.
SILENT = MIB


@contextmanager
def progress(what: str, files: int, total: int) -> Iterator[Callable[[int], None]]:
    """Show the transfer of ``total`` bytes; yields a callback for the bytes that have arrived."""
    lock = threading.Lock()
    if sys.stderr.isatty():
        from tqdm import tqdm  # takes as long to import as this package

        with tqdm(total=total, desc=what, unit="B", unit_scale=True, dynamic_ncols=True) as bar:

            def advance(count: int) -> None:
                with lock:
                    bar.update(count)

            yield advance
        return
    plain = _Lines(what, files, total)

    def told(count: int) -> None:
        with lock:
            plain.update(count)

    yield told
    plain.close()


class _Lines:
    def __init__(self, what: str, files: int, total: int) -> None:
        self.what, self.total, self.done = what, total, 0
        self.started = self.last = time.monotonic()
        if total >= SILENT:
            _say(f"{what}: {files} files, {total / MIB:.1f} MiB")

    def update(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.last >= LINE_EVERY_S:
            self.last = now
            _say(f"{self.what}: {self.done / MIB:.1f} of {self.total / MIB:.1f} MiB")

    def close(self) -> None:
        if self.total >= SILENT:
            _say(f"{self.what}: done in {time.monotonic() - self.started:.1f} s")


def _say(line: Any) -> None:
    print(line, file=sys.stderr, flush=True)
