"""Steps of sessions run in an order that no session can buy by asking more, or dearer."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future

import pytest

from positronic.offboard.serving.fair_pool import LIGHT_S, Account, FairPool

PATIENCE_S = 60


def account(used: float) -> Account:
    made = Account()
    made._used = used
    return made


@pytest.fixture
def pool() -> Iterator[FairPool]:
    pool = FairPool(2, "test")  # one of them for light sessions only
    yield pool
    pool.shutdown()


def held(pool: FairPool, owner: Account) -> tuple[threading.Event, "Future[bool]"]:
    """A step that has begun, and goes on until the event."""
    begun, go = threading.Event(), threading.Event()

    def step() -> bool:
        begun.set()
        return go.wait(PATIENCE_S)

    future = pool.submit(owner, step)
    assert begun.wait(PATIENCE_S)
    return go, future


def test_results_and_errors_are_the_steps(pool: FairPool) -> None:
    def fail() -> None:
        raise ValueError("no")

    assert pool.submit(Account(), divmod, 7, 2).result(PATIENCE_S) == (3, 1)
    with pytest.raises(ValueError, match="no"):
        pool.submit(Account(), fail).result(PATIENCE_S)
    assert pool.submit(Account(), lambda: 5).result(PATIENCE_S) == 5


def test_who_has_used_least_is_next_whoever_came_first(pool: FairPool) -> None:
    heavy = [account(10.0 * number) for number in (3, 1, 2)]
    go, first = held(pool, account(50.0))
    done: list[int] = []
    waiting = [
        pool.submit(owner, done.append, number)
        for number, owner in zip((3, 1, 2), heavy, strict=True)
    ]
    go.set()
    assert first.result(PATIENCE_S)
    for future in waiting:
        future.result(PATIENCE_S)
    assert done == [1, 2, 3]


def test_a_light_session_waits_for_no_heavy_one(pool: FairPool) -> None:
    go, _ = held(pool, account(50.0))
    heavy = [pool.submit(account(40.0), lambda: None) for _ in range(20)]
    for _ in range(3):
        assert pool.submit(account(LIGHT_S / 2), lambda: "light").result(PATIENCE_S) == "light"
    assert not any(future.done() for future in heavy)
    # A session that has just been opened is not one of them.
    fresh = pool.submit(Account(), lambda: None)
    assert pool.submit(account(0.0), lambda: "light").result(PATIENCE_S) == "light"
    assert not fresh.done()
    go.set()
    for future in (*heavy, fresh):
        future.result(PATIENCE_S)


def test_a_step_is_charged_what_it_computes_and_not_what_it_waits(pool: FairPool) -> None:
    def compute() -> None:
        end = time.thread_time() + 0.2
        while time.thread_time() < end:
            pass

    idle, busy = account(0.0), account(0.0)
    go, waiting = held(pool, idle)
    pool.submit(busy, compute).result(PATIENCE_S)
    go.set()
    waiting.result(PATIENCE_S)
    assert idle._used < 0.1
    assert busy._used >= 0.2


def test_nobody_waits_for_ever(pool: FairPool) -> None:
    """Others who use less, one after the other, pass by for a while only."""
    go, first = held(pool, account(50.0))
    patient = account(4.0)
    patient._at -= 60
    late = [pool.submit(account(0.4), lambda: None) for _ in range(3)]
    done = pool.submit(patient, lambda: [future.done() for future in late])
    go.set()
    assert first.result(PATIENCE_S)
    assert done.result(PATIENCE_S) == [False] * 3


def test_what_was_used_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = account(8.0)
    monkeypatch.setattr(time, "monotonic", lambda: owner._at + 3)
    assert owner.used == pytest.approx(1.0)


def test_the_end(pool: FairPool) -> None:
    go, running = held(pool, account(50.0))
    waiting = pool.submit(account(50.0), lambda: None)
    pool.shutdown()
    with pytest.raises(CancelledError):
        waiting.result(PATIENCE_S)
    with pytest.raises(RuntimeError, match="was shut down"):
        pool.submit(Account(), lambda: None)
    go.set()
    assert running.result(PATIENCE_S)
    for thread in threading.enumerate():
        if thread.name.startswith("test_"):
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
