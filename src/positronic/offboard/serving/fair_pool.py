"""Fair thread pool: runs the steps of sessions, least recent CPU time first."""

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
"""Half-life of the CPU time that a session has used."""
LIGHT_S = 0.3
"""A session that has used less CPU time than this lately has more threads to run in. To
decode two JPEG images of 640x480, 30 times a second, comes to 0.2 (measured on a CPU of 2026)."""
LEAST_S = 0.001
"""Lower bound of used time: sessions that have used nothing are ranked first come, first served."""
NEW_S = 0.5
"""Initial used time of a session: otherwise reconnecting would be a way to the front."""


class Account:
    """CPU time that one session has used lately, in seconds, decaying exponentially."""

    def __init__(self) -> None:
        self._used, self._at = NEW_S, time.monotonic()

    @property
    def used(self) -> float:
        """The used time, decayed until now."""
        return self._used * math.pow(0.5, (time.monotonic() - self._at) / HALF_LIFE_S)

    @property
    def rank(self) -> float:
        """Its rank in the queue, lowest first; ranks taken at different times are comparable.

        All used time decays at the same rate, so the order of two waiting steps never changes; and
        a waiting step eventually comes before all later ones, whatever it has used (no starvation).
        """
        return math.log2(max(self._used, LEAST_S)) + self._at / HALF_LIFE_S

    def charge(self, seconds: float) -> None:
        """Add the CPU time of a step."""
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
        except BaseException as error:  # as in an executor, it is raised to the caller
            self.account.charge(time.thread_time() - began)
            self.future.set_exception(error)
        else:
            self.account.charge(time.thread_time() - began)
            self.future.set_result(result)


class FairPool:
    """A pool whose queue is ordered by the CPU time that each session has used, not by arrival.

    Half of the threads run steps of light sessions only: sessions whose messages are expensive to
    decode wait for each other, and those with cheap ones do not.
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
        """Run ``step(*args)`` in a thread, charged to the account of a session.

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
            # All: a single woken thread may be one that takes light steps only.
            self._changed.notify_all()
        return future

    def shutdown(self) -> None:
        """Refuse new steps, cancel waiting ones, and let the threads finish their present one."""
        with self._changed:
            self._open = False
            waiting, self._waiting = self._waiting, []
            self._changed.notify_all()
        for step in waiting:
            step.future.cancel()

    def _work(self, only_light: bool) -> None:
        while (step := self._take(only_light)) is not None:
            step.run()
            del step  # it holds a message of megabytes

    def _take(self, only_light: bool) -> _Step | None:
        with self._changed:
            while self._open:
                # If the first is not light, none is: they are ordered by used time.
                if self._waiting and (self._waiting[0].is_light or not only_light):
                    return heapq.heappop(self._waiting)
                self._changed.wait()
        return None
