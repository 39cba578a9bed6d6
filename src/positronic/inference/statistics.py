"""Success rate with its Wilson interval, and the latency of inference calls."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foundation.statistics import Interval, wilson_interval

__all__ = ["Interval", "Latency", "Rate", "wilson_interval"]


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
