import itertools
import math
import subprocess
import sys

import pytest
from scipy.stats import binomtest

from foundation.statistics import (
    MOST_TRIALS,
    SIGNIFICANT,
    least_discordant,
    mcnemar_p,
    trials_to_decide,
    wilson_interval,
)

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


def test_mcnemars_test_is_the_exact_binomial_one() -> None:
    for won, lost in itertools.product(range(12), repeat=2):
        expected = binomtest(won, won + lost, 0.5).pvalue if won + lost else 1.0
        assert mcnemar_p(won, lost) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("factor", "least"), [(1, 6), (2, 7), (3, 7), (10, 9)])
def test_fewer_discordant_trials_cannot_be_significant(factor: int, least: int) -> None:
    assert least_discordant(factor) == least
    assert factor * mcnemar_p(least, 0) < SIGNIFICANT <= factor * mcnemar_p(0, least - 1)


def test_trials_to_decide_are_the_fewest_at_the_rates() -> None:
    assert trials_to_decide(3, 0, 6) == trials_to_decide(0, 3, 6) == 12
    assert trials_to_decide(3, 0, 6, factor=3) == 14
    for won, lost, trials in ((2, 1, 6), (6, 1, 12), (5, 3, 50)):
        needed = trials_to_decide(won, lost, trials)
        assert needed is not None
        more, fewer = needed * won // trials, math.ceil(needed * lost / trials)
        assert mcnemar_p(more, fewer) < SIGNIFICANT
        for fewer_trials in range(1, needed):
            counts = fewer_trials * won // trials, math.ceil(fewer_trials * lost / trials)
            assert mcnemar_p(*counts) >= SIGNIFICANT
    assert trials_to_decide(4, 4, 10) is trials_to_decide(0, 0, 0) is None
    assert trials_to_decide(101, 100, MOST_TRIALS // 10) is None


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
