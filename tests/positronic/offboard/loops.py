"""Runs a coroutine as a test, and fails it for what an event loop only logs."""

import asyncio
import functools
import gc
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any


def in_loop[**P](test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make an async test an ordinary one; errors that nobody heard of are its failure."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        unheard: list[dict[str, Any]] = []

        async def main() -> None:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda loop, context: unheard.append(context))
            async with asyncio.timeout(30):
                await test(*args, **kwargs)
            gc.collect()

        asyncio.run(main())
        assert unheard == []

    return run


async def happens(event: threading.Event | threading.Semaphore) -> None:
    """Wait for what another thread does."""
    wait = event.wait if isinstance(event, threading.Event) else event.acquire
    assert await asyncio.to_thread(wait, timeout=20)


async def settle() -> None:
    """Let every task run until it waits for something that is not a task."""
    for _ in range(10):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what follows by itself; the test's time is the bound."""
    while not condition():
        await asyncio.sleep(0.001)


def ask[T](awaitable: Awaitable[T]) -> "asyncio.Future[T]":
    """Start it beside the test."""
    return asyncio.ensure_future(awaitable)
