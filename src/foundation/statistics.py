"""Statistics of success rates: Wilson intervals, and McNemar's exact test of paired outcomes."""

from functools import lru_cache
from itertools import count
from typing import NamedTuple

CONFIDENCE = 0.95
SIGNIFICANT = 0.05
# More trials than these are never proposed: the rates were measured on far fewer.
MOST_TRIALS = 20_000


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


def mcnemar_p(won: int, lost: int) -> float:
    """Return the two-sided p-value of McNemar's exact test.

    Only discordant trials count. If both sides were equally good, each of them would go either way
    with probability 1/2. 1 without discordant trials.

    Source: Q. McNemar, "Note on the sampling error of the difference between correlated
    proportions or percentages", Psychometrika 12 (1947); with the binomial distribution instead of
    his normal approximation.
    """
    from scipy.stats import binom

    # With probability 1/2 both tails are equal; together they count the middle twice.
    return min(1.0, 2 * float(binom.cdf(min(won, lost), won + lost, 0.5)))


@lru_cache
def least_discordant(factor: int = 1) -> int:
    """Return the fewest discordant trials with which McNemar's exact test can be significant.

    The p-value is multiplied by ``factor``, as a correction for several tests does.
    """
    return next(n for n in count(1) if factor * mcnemar_p(n, 0) < SIGNIFICANT)


def trials_to_decide(won: int, lost: int, trials: int, factor: int = 1) -> int | None:
    """Return the fewest trials with which McNemar's exact test is significant at these rates.

    Args:
        won: Trials that went one way.
        lost: Trials that went the other way.
        trials: All trials, concordant ones included.
        factor: Multiplies the p-value, as a correction for several tests does.

    Returns:
        The number of trials; None if both ways are equally frequent, or more than ``MOST_TRIALS``
        would be needed.
    """
    import numpy as np
    from scipy.stats import binom

    if won == lost:
        return None
    counts = np.arange(1, MOST_TRIALS + 1)
    # Whole trials of both kinds: not more wins than the rate gives, and not fewer losses.
    more = counts * max(won, lost) // trials
    fewer = -(-counts * min(won, lost) // trials)
    p_values = 2 * factor * binom.cdf(np.minimum(more, fewer), more + fewer, 0.5)
    significant = np.flatnonzero(p_values < SIGNIFICANT)
    return int(counts[significant[0]]) if len(significant) else None
