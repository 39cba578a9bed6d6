"""Fair thread pool: runs the steps of all sessions, those first that used the least CPU time."""

import heapq
import itertools
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

HALF_LIFE_S = 1.0
"""After so long half of what a session has used is forgotten."""
LIGHT_S = 0.3
"""A session that has used less processor time than this lately has more threads to run in. To
decode two JPEG images of 640x480, 30 times a second, comes to 0.2 (measured on a CPU of 2026)."""
LEAST_S = 0.001
"""Less than this is not told apart: whoever has used nothing waits for its turn all the same."""
NEW_S = 0.5
"""What a new session begins with: else reconnecting would be a way to the front of the queue."""


class Account:
    """Processor time that one session has used lately, in seconds."""

    def __init__(self) -> None:
        self._used, self._at = NEW_S, time.monotonic()

    @property
    def used(self) -> float:
        """What is not forgotten of it."""
        return self._used * math.pow(0.5, (time.monotonic() - self._at) / HALF_LIFE_S)

    @property
    def rank(self) -> float:
        """Its place in a queue, lowest first, among ranks of whatever time.

        What is used is forgotten at one pace, so of two that wait the order never changes; and who
        waits comes before all who come late enough, whatever they have used.
        """
        return math.log2(max(self._used, LEAST_S)) + self._at / HALF_LIFE_S

    def charge(self, seconds: float) -> None:
        """Add what a step has used."""
        self._used, self._at = self.used + seconds, time.monotonic()


@dataclass(order=True)
class _Step:
    rank: float
    number: int
    account: Account = field(compare=False)
    future: Future[Any] = field(compare=False)
    call: Callable[[], Any] = field(compare=False)

    @property
    def is_light(self) -> bool:
        return self.account.used < LIGHT_S

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        began = time.thread_time()
        try:
            result = self.call()
        except BaseException as error:  # as in an executor it is the caller's
            self.account.charge(time.thread_time() - began)
            self.future.set_exception(error)
        else:
            self.account.charge(time.thread_time() - began)
            self.future.set_result(result)


class FairPool:
    """A pool whose queue is ordered by what each session has used, and not by who came first.

    Half of the threads run steps of light sessions only: whoever sends messages that are dear to
    decode waits for others who do, and those who send cheap ones do not.
    """

    def __init__(self, threads: int, name: str) -> None:
        """Start ``threads`` threads, 2 at least."""
        threads = max(2, threads)
        self._waiting: list[_Step] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._open = True
        for number in range(threads):
            work = partial(self._work, only_light=number < threads // 2)
            threading.Thread(target=work, name=f"{name}_{number}", daemon=True).start()

    def submit[T](self, account: Account, step: Callable[..., T], *args: object) -> Future[T]:
        """Let a thread run ``step(*args)`` on the account of a session.

        Raises:
            RuntimeError: the pool was shut down.
        """
        future: Future[T] = Future()
        with self._changed:
            if not self._open:
                raise RuntimeError("the pool was shut down")
            number = next(self._numbers)
            call = partial(step, *args)
            heapq.heappush(self._waiting, _Step(account.rank, number, account, future, call))
            # All: the one that is woken may be the one that leaves it to others.
            self._changed.notify_all()
        return future

    def shutdown(self) -> None:
        """Take no more steps, cancel those that wait, and let the threads end with theirs."""
        with self._changed:
            self._open = False
            waiting, self._waiting = self._waiting, []
            self._changed.notify_all()
        for step in waiting:
            step.future.cancel()

    def _work(self, only_light: bool) -> None:
        while (step := self._take(only_light)) is not None:
            step.run()
            del step  # with a message of megabytes

    def _take(self, only_light: bool) -> _Step | None:
        with self._changed:
            while self._open:
                # If the first is not light, none is: they are in the order of what is used.
                if self._waiting and (self._waiting[0].is_light or not only_light):
                    return heapq.heappop(self._waiting)
                self._changed.wait()
        return None
