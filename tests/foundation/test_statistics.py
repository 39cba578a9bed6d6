import math
import subprocess
import sys

import pytest

from foundation.statistics import wilson_interval

Z = 1.959963984540054  # 2.5 % of a normal distribution lie above it


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(9, 10, 59.6, 98.2), (44, 50, 76.2, 94.4), (438, 500, 84.4, 90.2), (47, 50, 83.8, 97.9)],
)
def test_published_intervals(successes: int, trials: int, low: float, high: float) -> None:
    interval = wilson_interval(successes, trials)
    assert round(100 * interval.low, 1) == low
    assert round(100 * interval.high, 1) == high
    assert str(interval) == f"{low} … {high}"


@pytest.mark.parametrize("trials", [1, 2, 7, 50, 333])
def test_its_ends_solve_wilsons_equation(trials: int) -> None:
    """They are the rates from which the observed one is z standard errors away."""
    for successes in range(trials + 1):
        rate, scale = successes / trials, 1 + Z**2 / trials
        half = Z * math.sqrt(rate * (1 - rate) / trials + (Z / (2 * trials)) ** 2) / scale
        centre = (rate + Z**2 / (2 * trials)) / scale
        expected = centre - half, centre + half
        assert wilson_interval(successes, trials) == pytest.approx(expected, abs=1e-12)


def test_ends_are_exact_at_the_borders() -> None:
    assert wilson_interval(0, 50).low == 0.0
    assert wilson_interval(50, 50).high == 1.0
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("successes", "trials"), [(-1, 5), (6, 5), (1, 0), (0, -1)])
def test_impossible_counts_are_refused(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="expected 0 <= successes <= trials"):
        wilson_interval(successes, trials)


def test_scipy_is_loaded_only_for_an_interval() -> None:
    program = """if True:
        import sys
        import positronic.inference.command, positronic.inference.report, getiaction.eval.statistics
        assert not [name for name in sys.modules if name.startswith("scipy")]
        from foundation.statistics import wilson_interval
        assert wilson_interval(0, 0) == (0, 1) and "scipy" not in sys.modules
        wilson_interval(1, 2)
        assert "scipy.stats" in sys.modules
    """
    subprocess.run([sys.executable, "-c", program], check=True)
