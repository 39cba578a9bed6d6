"""Pairwise comparison of policies on the same seeds: verdict, p-value, ``comparison.json``."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import mean
from typing import Any

from foundation.statistics import (
    MOST_TRIALS,
    SIGNIFICANT,
    least_discordant,
    mcnemar_p,
    trials_to_decide,
    wilson_interval,
)
from positronic.inference.comparison.entrants import Entrant

FORMAT = 1


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
    def differing(self) -> int:
        """Number of seeds on which only one policy succeeded: they alone decide."""
        return self.first_only + self.second_only

    @property
    def difference(self) -> float | None:
        """Success rate of the second minus that of the first; None without seeds."""
        return (self.second_only - self.first_only) / self.count if self.count else None

    @property
    def p_value(self) -> float:
        """Probability of pairs as unequal as these or more if both policies were equally good."""
        return mcnemar_p(self.second_only, self.first_only)

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


@dataclass(frozen=True)
class Contest:
    """Two entrants on the seeds that both finished.

    ``p_value`` is corrected for the number of contests (Holm), by ``factor`` unless a smaller one
    is larger when corrected; ``joint_steps`` are the mean lengths of the first's and the second's
    rollouts on the seeds that both solved, None without such seeds;
    ``left_out`` counts the seeds that one of them did not finish.
    """

    first: Entrant
    second: Entrant
    pairs: Pairs
    p_value: float
    joint_steps: tuple[float, float] | None
    left_out: int
    factor: int = 1

    @property
    def significant(self) -> bool:
        """Whether the difference is statistically significant."""
        return self.p_value < SIGNIFICANT

    @property
    def verdict(self) -> str:
        """The result in words."""
        if not self.significant or not self.pairs.difference:
            return "no significant difference"
        return f"{self.second.label} is {'better' if self.pairs.difference > 0 else 'worse'}"

    @property
    def least_differing(self) -> int:
        """The fewest differing seeds that can decide, if all of them go the same way."""
        return least_discordant(self.factor)

    @property
    def seeds_to_decide(self) -> int | None:
        """The number of seeds that decides at the measured rates; None if there is none."""
        pairs = self.pairs
        return trials_to_decide(pairs.second_only, pairs.first_only, pairs.count, self.factor)

    @property
    def advice(self) -> str | None:
        """How many seeds a decision needs; None if there is a decision, or no seed."""
        if self.significant or not self.pairs.count:
            return None
        seeds, differing, least = self.seeds_to_decide, self.pairs.differing, self.least_differing
        if differing < least:
            few = f"too few: at least {least} seeds must differ, {differing or 'none'} did"
            return few if seeds is None else f"{few}; at these rates, play about {seeds} seeds"
        if seeds is None:
            return f"at these rates, {MOST_TRIALS} seeds would not decide"
        return f"at these rates, about {seeds} seeds would decide"

    def to_json(self) -> dict[str, Any]:
        """Return all values as JSON types."""
        pairs = self.pairs
        return {
            "first": self.first.label,
            "second": self.second.label,
            "seeds": pairs.count,
            "left_out": self.left_out,
            "both_succeeded": pairs.both,
            "first_only": pairs.first_only,
            "second_only": pairs.second_only,
            "both_failed": pairs.neither,
            "difference": pairs.difference,
            "newcombe_95": list(pairs.interval) if pairs.count else None,
            "mcnemar_exact_p": pairs.p_value,
            "holm_p": self.p_value,
            "verdict": self.verdict,
            "least_differing_seeds": self.least_differing,
            "seeds_to_decide": self.seeds_to_decide,
            "mean_steps_where_both_succeeded": self.joint_steps and list(self.joint_steps),
        }


def all_contests(entrants: Sequence[Entrant]) -> list[Contest]:
    """Compare each entrant with each later one."""
    compared = []
    for first, second in combinations(entrants, 2):
        mine, theirs = first.finished, second.finished
        seeds = sorted(mine.keys() & theirs.keys())
        pairs = Pairs.of(
            [mine[seed].success for seed in seeds], [theirs[seed].success for seed in seeds]
        )
        solved = [seed for seed in seeds if mine[seed].success and theirs[seed].success]
        steps = None
        if solved:
            steps = (
                mean(mine[seed].steps for seed in solved),
                mean(theirs[seed].steps for seed in solved),
            )
        left_out = len(first.episodes.keys() | second.episodes.keys()) - len(seeds)
        compared.append((first, second, pairs, steps, left_out))
    raw = [pairs.p_value for _, _, pairs, _, _ in compared]
    return [
        # Holm multiplies a p-value by the number of those that are not smaller.
        Contest(first, second, pairs, p, steps, left_out, sum(r >= pairs.p_value for r in raw))
        for (first, second, pairs, steps, left_out), p in zip(compared, holm(raw), strict=True)
    ]


def regressions(entrants: Sequence[Entrant], contests: Sequence[Contest]) -> list[Contest]:
    """Contests whose second entrant is significantly worse than the first of all."""
    return [
        contest
        for contest in contests
        if contest.first is entrants[0]
        and contest.significant
        and (contest.pairs.difference or 0) < 0
    ]


def seeds_of(entrants: Sequence[Entrant]) -> list[int]:
    """All seeds that any entrant played, in order."""
    return sorted({seed for entrant in entrants for seed in entrant.episodes})


def dumps(
    entrants: Sequence[Entrant], contests: Sequence[Contest], origin: Mapping[str, Any]
) -> str:
    """Return the text of ``comparison.json``; ``origin`` has values that differ between runs."""
    first, by_seed = entrants[0].results, [entrant.episodes for entrant in entrants]
    document = {
        "format": FORMAT,
        **{k: getattr(first, k) for k in ("env", "task", "control_fps", "simulation_time")},
        "entrants": [
            {
                "label": entrant.label,
                "description": entrant.description,
                "player": entrant.results.player,
                "summary": entrant.results.summary.model_dump(),
            }
            for entrant in entrants
        ],
        "contests": [contest.to_json() for contest in contests],
        "seeds": [
            {
                "seed": seed,
                "ended_by": [e[seed].ended_by if seed in e else None for e in by_seed],
                "steps": [e[seed].steps if seed in e else None for e in by_seed],
            }
            for seed in seeds_of(entrants)
        ],
        "run": {
            **origin,
            "inference_ms": [e.results.run.inference_ms.model_dump() for e in entrants],
        },
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def summary_lines(entrants: Sequence[Entrant], contests: Sequence[Contest]) -> list[str]:
    """Lines for the terminal: each entrant's success rate, and each pair's comparison."""
    width = max(len(entrant.label) for entrant in entrants)
    lines = [f"{entrant.label:<{width}}  {entrant.rate}" for entrant in entrants]
    corrected = f" (Holm, {len(contests)} pairs)" if len(contests) > 1 else ""
    for contest in contests:
        pairs, names = contest.pairs, f"{contest.second.label} against {contest.first.label}"
        if pairs.difference is None:
            lines.append(f"{names}: no common seeds")
            continue
        low, high = pairs.interval
        lines += [
            f"{names}: {100 * pairs.difference:+.1f} points"
            f" (95 % interval {100 * low:+.1f} … {100 * high:+.1f})",
            f"  won {pairs.second_only}, lost {pairs.first_only} of {pairs.count} seeds;"
            f" exact McNemar p = {contest.p_value:.3g}{corrected}: {contest.verdict}",
        ]
        if contest.advice is not None:
            lines.append(f"  {contest.advice}")
    return lines
