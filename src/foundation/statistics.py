"""Confidence intervals of success rates."""

from functools import lru_cache
from typing import NamedTuple

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A confidence interval of a probability; both ends lie in [0, 1]."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.low:.1f} … {100 * self.high:.1f}"


@lru_cache  # 1 ms each; a report asks for the same ones repeatedly
def wilson_interval(successes: int, trials: int) -> Interval:
    """Return the 95 % Wilson score interval (no continuity correction) of a success probability.

    Unlike the normal approximation it stays inside [0, 1] and keeps its coverage for few trials
    and for rates near 0 or 1, as in robot evaluations. Without trials the interval is [0, 1].

    Source: E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference",
    Journal of the American Statistical Association 22 (1927).

    Raises:
        ValueError: ``successes`` is not in [0, ``trials``].
    """
    if not 0 <= successes <= trials:  # scipy would give NaN
        raise ValueError(
            f"{successes} successes in {trials} trials: expected 0 <= successes <= trials"
        )
    if trials == 0:
        return Interval(0.0, 1.0)
    from scipy.stats import binomtest  # takes longer to load than all else here

    interval = binomtest(successes, trials).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(float(interval.low), float(interval.high))
