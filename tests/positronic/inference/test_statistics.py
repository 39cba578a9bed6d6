import pytest
from scipy.stats import binomtest

from positronic.inference.statistics import Interval, Latency, Rate, wilson_interval


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(9, 10, 59.6, 98.2), (44, 50, 76.2, 94.4), (438, 500, 84.4, 90.2), (47, 50, 83.8, 97.9)],
)
def test_published_intervals(successes: int, trials: int, low: float, high: float) -> None:
    interval = wilson_interval(successes, trials)
    assert round(100 * interval.low, 1) == low
    assert round(100 * interval.high, 1) == high


@pytest.mark.parametrize("trials", [1, 2, 7, 50, 333])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_equals_scipy(trials: int, confidence: float) -> None:
    for successes in {0, 1, trials // 2, trials - 1, trials}:
        expected = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
        ours = wilson_interval(successes, trials, confidence)
        assert ours.low == pytest.approx(expected.low, abs=1e-12)
        assert ours.high == pytest.approx(expected.high, abs=1e-12)


def test_ends_are_exact_at_the_borders() -> None:
    assert wilson_interval(0, 50).low == 0.0
    assert wilson_interval(50, 50).high == 1.0
    assert wilson_interval(0, 0) == Interval(0.0, 1.0)


@pytest.mark.parametrize(("successes", "trials"), [(-1, 5), (6, 5)])
def test_impossible_counts_are_refused(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="expected 0 <= successes <= trials"):
        wilson_interval(successes, trials)


def test_confidence_must_be_a_probability() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        wilson_interval(1, 2, 95)


def test_rate_reads_as_one_line() -> None:
    assert str(Rate(47, 50)) == "47/50 = 94.0 % (95 % Wilson interval 83.8 … 97.9)"
    assert Rate(0, 0).value is None
    assert "no rate" in str(Rate(0, 0))


def test_latency_of_samples() -> None:
    latency = Latency.of([4.0, 1.0, 3.0, 2.0])
    assert (latency.count, latency.mean, latency.median, latency.max) == (4, 2.5, 2.5, 4.0)
    assert latency.p95 == pytest.approx(3.85)
    assert Latency.of([]) == Latency(0, None, None, None, None)
