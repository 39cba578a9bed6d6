"""Paired statistics of two policies: exact McNemar test, interval of the difference, Holm."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from foundation.statistics import wilson_interval

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Pairs:
    """Outcomes of a first and a second policy on the same seeds, counted."""

    both: int
    first_only: int
    second_only: int
    neither: int

    @classmethod
    def of(cls, first: Sequence[bool], second: Sequence[bool]) -> "Pairs":
        """Count the successes and failures of two policies, in the same order of seeds."""
        outcomes = list(zip(first, second, strict=True))
        return cls(
            both=outcomes.count((True, True)),
            first_only=outcomes.count((True, False)),
            second_only=outcomes.count((False, True)),
            neither=outcomes.count((False, False)),
        )

    @property
    def count(self) -> int:
        """Number of seeds."""
        return self.both + self.first_only + self.second_only + self.neither

    @property
    def difference(self) -> float | None:
        """Success rate of the second minus that of the first; None without seeds."""
        return (self.second_only - self.first_only) / self.count if self.count else None

    @property
    def p_value(self) -> float:
        """Probability of pairs as unequal as these or more if both policies were equally good.

        The exact, two-sided form of McNemar's test: only discordant seeds count, and under the
        null hypothesis each goes either way with probability 1/2. 1 without discordant seeds.

        Source: Q. McNemar, "Note on the sampling error of the difference between correlated
        proportions or percentages", Psychometrika 12 (1947); with the binomial distribution
        instead of his normal approximation.
        """
        from scipy.stats import binomtest

        discordant = self.first_only + self.second_only
        if not discordant:
            return 1.0
        return float(binomtest(self.second_only, discordant, 0.5).pvalue)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of :attr:`difference`; [-1, 1] without seeds.

        Wilson intervals of both rates, squared and added with the correlation of the pairs.

        Source: R. G. Newcombe, "Improved confidence intervals for the difference between binomial
        proportions based on paired data", Statistics in Medicine 17 (1998), method 10.
        """
        n = self.count
        difference = self.difference
        if difference is None:
            return -1.0, 1.0
        second, first = self.both + self.second_only, self.both + self.first_only
        below, above = _margins(second, n), _margins(first, n)
        phi = self._correlation()
        low = below[0] ** 2 - 2 * phi * below[0] * above[1] + above[1] ** 2
        high = below[1] ** 2 - 2 * phi * below[1] * above[0] + above[0] ** 2
        # Rounding may make the difference slightly negative.
        return difference - math.sqrt(max(0.0, low)), difference + math.sqrt(max(0.0, high))

    def _correlation(self) -> float:
        a, b, c, d = self.both, self.second_only, self.first_only, self.neither
        product = (a + b) * (c + d) * (a + c) * (b + d)
        if not product:
            return 0.0
        covariance = a * d - b * c
        # Continuity correction of a positive correlation, which narrows the interval.
        corrected = max(covariance - self.count / 2, 0.0) if covariance > 0 else covariance
        return corrected / math.sqrt(product)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for multiple tests: the family-wise error rate at 0.05 is at most 5 %.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian
    Journal of Statistics 6 (1979).
    """
    adjusted = [0.0] * len(p_values)
    worst = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = worst
    return adjusted


def _margins(successes: int, trials: int) -> tuple[float, float]:
    """Distance from the rate to the lower and upper end of the Wilson interval."""
    interval = wilson_interval(successes, trials)
    rate = successes / trials
    return rate - interval.low, interval.high - rate
