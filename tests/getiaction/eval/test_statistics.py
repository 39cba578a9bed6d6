import math

import pytest

from getiaction.eval import wilson_interval


# By Wilson's formula with z = 1.959964, rounded; the last two are the textbook's 5/10 and 50/100.
@pytest.mark.parametrize(
    ("successes", "trials", "expected"),
    [
        (0, 10, (0.0, 0.2775)),
        (10, 10, (0.7225, 1.0)),
        (5, 10, (0.2366, 0.7634)),
        (50, 100, (0.4038, 0.5962)),
        (0, 0, (0.0, 1.0)),
    ],
)
def test_wilson_interval(successes: int, trials: int, expected: tuple[float, float]) -> None:
    assert wilson_interval(successes, trials) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("successes", range(8))
def test_its_ends_solve_wilsons_equation(successes: int) -> None:
    """They are the rates p from which the observed one is z standard errors away."""
    n, z = 7, 1.959963984540054
    for p in wilson_interval(successes, n):
        distance = abs(successes / n - p)
        assert distance == pytest.approx(z * math.sqrt(p * (1 - p) / n), abs=1e-9)
