"""Success rate with its Wilson interval, and the latency of inference calls."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A confidence interval of a probability; both ends lie in [0, 1]."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.low:.1f} … {100 * self.high:.1f}"


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Return the Wilson score interval (no continuity correction) of a success probability.

    Unlike the normal approximation it stays inside [0, 1] and keeps its coverage for few trials
    and for rates near 0 or 1, which are common in robot evaluations. Without trials the interval
    is [0, 1].

    Source: E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference",
    Journal of the American Statistical Association 22 (1927).

    Raises:
        ValueError: ``successes`` is not in [0, ``trials``], or ``confidence`` not in (0, 1).
    """
    if not 0 <= successes <= trials:
        raise ValueError(
            f"{successes} successes in {trials} trials: expected 0 <= successes <= trials"
        )
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence}: expected a number between 0 and 1")
    if trials == 0:
        return Interval(0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = successes / trials
    scale = 1.0 + z * z / trials
    centre = (rate + z * z / (2 * trials)) / scale
    half = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials)) / scale
    # At 0 and at `trials` successes one end is exactly 0 or 1; rounding would be off by 1e-17.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == trials else centre + half
    return Interval(low, high)


@dataclass(frozen=True)
class Rate:
    """Successes among finished trials, with the 95 % Wilson interval of the underlying rate."""

    successes: int
    trials: int

    @property
    def value(self) -> float | None:
        """The observed rate, or None without trials."""
        return self.successes / self.trials if self.trials else None

    @property
    def interval(self) -> Interval | None:
        """The 95 % Wilson interval, or None without trials."""
        return wilson_interval(self.successes, self.trials) if self.trials else None

    def __str__(self) -> str:
        if self.value is None:
            return "0/0: nothing was finished, so there is no rate"
        return (
            f"{self.successes}/{self.trials} = {100 * self.value:.1f} % "
            f"(95 % Wilson interval {self.interval})"
        )


@dataclass(frozen=True)
class Latency:
    """Statistics of inference calls in milliseconds; None without calls."""

    count: int
    mean: float | None
    median: float | None
    p95: float | None
    max: float | None

    @classmethod
    def of(cls, durations_ms: Sequence[float]) -> "Latency":
        """Summarise ``durations_ms``; percentiles interpolate linearly between samples."""
        if not durations_ms:
            return cls(0, None, None, None, None)
        values = np.asarray(durations_ms, dtype=np.float64)
        median, p95 = np.percentile(values, [50, 95])
        return cls(
            len(values), float(values.mean()), float(median), float(p95), float(values.max())
        )
