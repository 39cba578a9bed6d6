import itertools

import numpy as np
import pytest
from scipy.stats import multinomial

from positronic.inference.comparison.contest import Pairs, holm


def test_outcomes_are_counted_by_pair() -> None:
    first = [True, True, False, False, True]
    second = [True, False, True, False, False]
    assert Pairs.of(first, second) == Pairs(both=1, first_only=2, second_only=1, neither=1)


# Bentur et al. (2009) and Cavo et al. (2012), the examples of Fagerland, Lydersen and Laake,
# "Recommended tests and confidence intervals for paired binomial proportions" (2014).
@pytest.mark.parametrize(
    ("pairs", "difference", "low", "high", "p_value"),
    [
        (Pairs(1, 1, 7, 12), 0.286, 0.026, 0.507, 0.0703),
        (Pairs(59, 6, 16, 80), 0.062, 0.005, 0.119, 0.0525),
    ],
)
def test_published_examples(
    pairs: Pairs, difference: float, low: float, high: float, p_value: float
) -> None:
    assert pairs.difference == pytest.approx(difference, abs=5e-4)
    assert pairs.interval == pytest.approx((low, high), abs=5e-4)
    assert pairs.p_value == pytest.approx(p_value, abs=5e-5)


def test_the_test_is_exact() -> None:
    # All of n seeds one way: two tails of 1/2^n each.
    for n in range(1, 12):
        assert Pairs(5, n, 0, 5).p_value == pytest.approx(min(1.0, 2 * 0.5**n))
        assert Pairs(0, 0, n, 0).p_value == Pairs(9, n, 0, 9).p_value
    assert Pairs(20, 0, 0, 3).p_value == 1.0
    assert Pairs(3, 4, 4, 3).p_value == 1.0


def test_changing_sides_mirrors_everything() -> None:
    for counts in itertools.product((0, 1, 4), repeat=4):
        a, b, c, d = counts
        one, two = Pairs(a, b, c, d), Pairs(a, c, b, d)
        assert one.p_value == two.p_value
        low, high = one.interval
        assert two.interval == pytest.approx((-high, -low))
        if one.difference is not None:
            assert two.difference == -one.difference
            assert -1 - 1e-9 <= low <= one.difference <= high <= 1 + 1e-9


def test_the_interval_covers_the_truth() -> None:
    """Over all tables of 30 seeds, at several true rates: 95 % within what the source reports."""
    n = 30
    tables = [
        (a, b, c, n - a - b - c)
        for a in range(n + 1)
        for b in range(n + 1 - a)
        for c in range(n + 1 - a - b)
    ]
    intervals = np.array([Pairs(*table).interval for table in tables])
    for shares in ([0.8, 0.1, 0.05, 0.05], [0.5, 0.2, 0.2, 0.1], [0.3, 0.05, 0.35, 0.3]):
        truth = shares[2] - shares[1]
        chances = multinomial.pmf(tables, n, shares)
        inside = (intervals[:, 0] <= truth) & (truth <= intervals[:, 1])
        assert 0.93 < chances[inside].sum() < 0.985


def test_no_seeds_say_nothing() -> None:
    nothing = Pairs(0, 0, 0, 0)
    assert nothing.difference is None
    assert nothing.p_value == 1.0
    assert nothing.interval == (-1.0, 1.0)


def test_holm_multiplies_by_what_is_left() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []
