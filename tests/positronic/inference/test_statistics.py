import pytest

from positronic.inference.statistics import Latency, Rate


def test_rate_reads_as_one_line() -> None:
    assert str(Rate(47, 50)) == "47/50 = 94.0 % (95 % Wilson interval 83.8 … 97.9)"
    assert Rate(0, 0).value is None
    assert "no rate" in str(Rate(0, 0))


def test_latency_of_samples() -> None:
    latency = Latency.of([4.0, 1.0, 3.0, 2.0])
    assert (latency.count, latency.mean, latency.median, latency.max) == (4, 2.5, 2.5, 4.0)
    assert latency.p95 == pytest.approx(3.85)
    assert Latency.of([]) == Latency(0, None, None, None, None)
