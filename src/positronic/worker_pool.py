"""Worker processes that end when they should, however often someone presses Ctrl-C."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType
from typing import Any

# Terminals, `timeout` and impatient people send SIGINT several times in a row.
SAME_INTERRUPT_S = 1.0


@contextmanager
def worker_pool(
    workers: int, initializer: Callable[..., None], *initargs: Any
) -> Iterator[ProcessPoolExecutor]:
    """Give a pool of spawned processes; on leaving, wait for what they have begun.

    The first SIGINT raises KeyboardInterrupt, as ever. Later ones must not interrupt the waiting,
    or the executor would leave its processes behind and the program would hang when it exits; after
    ``SAME_INTERRUPT_S`` seconds they kill the workers instead.
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
    """Set environment variables that are not set yet, for the time of the block.

    Child processes inherit them, in time for every library that they load.
    """
    added = [name for name in values if name not in os.environ]
    os.environ.update({name: values[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


class _Pool(ProcessPoolExecutor):
    """Begins its processes deaf to Ctrl-C, which would end them in the midst of their imports.

    Attributes:
        is_beginning: whether it may be beginning one, which must not be interrupted half-way.
        was_interrupted: whether Ctrl-C came meanwhile.
    """

    is_beginning = was_interrupted = False

    def submit[T](self, step: Callable[..., T], /, *args: Any, **more: Any) -> Future[T]:
        # It lets the signals through that it finds blocked when it begins its own process.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        self.is_beginning = True
        try:
            submitted = super().submit(step, *args, **more)
        finally:
            self.is_beginning = False
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if self.was_interrupted:
            raise KeyboardInterrupt
        return submitted


def _start(initializer: Callable[..., None], *initargs: Any) -> None:
    # Ctrl-C reaches the whole group; the parent decides, the workers finish what they have begun.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    initializer(*initargs)


def _end_with_parent() -> None:
    # A parent that is killed tells nobody, and the pool's queue would wait for ever.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def _one_interrupt(pool: _Pool) -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    in_main = threading.current_thread() is threading.main_thread()
    # Whoever has changed SIGINT, be it the shell with `&`, has said what it is to do.
    if before is not signal.default_int_handler or not in_main:
        yield
        return
    first: float | None = None

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if first is None:
            first = time.monotonic()
            if pool.is_beginning:  # another thread has taken it, though this one does not now
                pool.was_interrupted = True
                return
            raise KeyboardInterrupt
        if time.monotonic() - first > SAME_INTERRUPT_S:
            for child in multiprocessing.active_children():
                child.kill()

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
