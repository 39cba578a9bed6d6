import pytest

from positronic.offboard.serving.channel import TooFast
from positronic.offboard.serving.limits import RateLimit


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def let_through(limit: RateLimit, tries: int) -> int:
    passed = 0
    for _ in range(tries):
        try:
            limit()
        except TooFast:
            continue
        passed += 1
    return passed


def test_so_many_a_second_and_as_many_at_once_after_a_pause(clock: Clock) -> None:
    limit = RateLimit(10)
    assert let_through(limit, 50) == 10
    clock.now += 0.5
    assert let_through(limit, 50) == 5
    clock.now += 100
    assert let_through(limit, 50) == 10


def test_it_says_when_the_next_one_is_due(clock: Clock) -> None:
    limit = RateLimit(10)
    let_through(limit, 10)
    with pytest.raises(TooFast, match="more than 10 requests a second") as error:
        limit()
    assert error.value.retry_after_s == pytest.approx(0.1)
    clock.now += error.value.retry_after_s
    limit()


def test_an_even_pace_at_the_rate_is_never_refused(clock: Clock) -> None:
    limit = RateLimit(15)
    for _ in range(1000):
        limit()
        clock.now += 1 / 15


def test_less_than_one_a_second(clock: Clock) -> None:
    limit = RateLimit(0.5)
    assert let_through(limit, 5) == 1
    clock.now += 1.9
    assert let_through(limit, 5) == 0
    clock.now += 0.1
    assert let_through(limit, 5) == 1


def test_zero_is_any_number(clock: Clock) -> None:
    assert let_through(RateLimit(0), 10_000) == 10_000
