"""Process pool that leaves no worker behind, however often someone presses Ctrl-C.

The same holds for SIGTERM and SIGHUP where they interrupt this process.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType
from typing import Any

from foundation.stopping import SIGNALS, Received, ignore_terminal, interrupt, leave_lost_streams


@contextmanager
def worker_pool(
    workers: int, initializer: Callable[..., None], *initargs: Any
) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of spawned processes; on exit, wait for the tasks they have begun.

    The first signal raises KeyboardInterrupt, as usual. A later one must not interrupt the waiting,
    or the executor would leave its processes behind and the program would hang when it exits; it
    kills the workers instead, if it :meth:`~foundation.stopping.Received.repeats` the first.
    """
    # Spawned, not forked: the parent may hold the threads of torch or of a renderer.
    pool = _Pool(
        workers,
        multiprocessing.get_context("spawn"),
        initializer=_start,
        initargs=(initializer, *initargs),
    )
    with _one_interrupt(pool):
        try:
            yield pool
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Set environment variables that are not set yet, for the duration of the block.

    Child processes inherit them before they load any library.
    """
    added = [name for name in values if name not in os.environ]
    os.environ.update({name: values[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


class _Pool(ProcessPoolExecutor):
    """Starts its processes with signals blocked, which would kill them during their imports.

    Attributes:
        is_beginning: whether it may be starting one, which must not be interrupted half-way.
        interrupted_by: the signal that came meanwhile.
    """

    is_beginning = False
    interrupted_by: int | None = None

    def submit[T](self, step: Callable[..., T], /, *args: Any, **more: Any) -> Future[T]:
        # Started first: it unblocks signals that it finds blocked when it starts its process.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self.is_beginning = True
        try:
            return super().submit(step, *args, **more)
        finally:
            self.is_beginning = False
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            # Also where the pool is broken, which the caller may mend and go on.
            if self.interrupted_by is not None:
                raise KeyboardInterrupt(self.interrupted_by)


def _start(initializer: Callable[..., None], *initargs: Any) -> None:
    # Signals of a terminal reach the whole process group; the parent decides, the workers finish
    # their tasks. SIGTERM stays: with it the executor ends the others when one has died.
    ignore_terminal()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    initializer(*initargs)  # may take signals itself
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _end_with_parent() -> None:
    # A parent that is killed tells nobody, and the pool's queue would wait for ever.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def _one_interrupt(pool: _Pool) -> Iterator[None]:
    before = {
        signum: handler
        for signum in SIGNALS
        # Other handlers were set on purpose, be it by the shell with `&`.
        if (handler := signal.getsignal(signum)) in (signal.default_int_handler, interrupt)
    }
    if not before or threading.current_thread() is not threading.main_thread():
        yield
        return
    received = Received()

    def on_signal(number: int, frame: FrameType | None) -> None:
        is_first = received.first is None
        repeats = received.repeats(number)
        if is_first:
            if pool.is_beginning:  # blocked here, but delivered by another thread
                leave_lost_streams()
                pool.interrupted_by = number
                return
            interrupt(number, frame)
        if repeats:
            for child in multiprocessing.active_children():
                child.kill()

    for signum in before:
        signal.signal(signum, on_signal)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
