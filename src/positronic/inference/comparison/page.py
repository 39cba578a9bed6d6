"""``comparison.html``: several policies on the same seeds, as one self-contained page."""

from collections.abc import Mapping, Sequence
from typing import Any

from positronic.inference.comparison.contest import Contest, seeds_of
from positronic.inference.comparison.entrants import Entrant
from positronic.inference.pages.rendering import render


def render_page(
    entrants: Sequence[Entrant], contests: Sequence[Contest], origin: Mapping[str, Any]
) -> str:
    """Return the page as HTML; ``origin`` has ``started`` and ``command``."""
    first = entrants[0].results
    seeds, differing = seeds_of(entrants), _differing(entrants)
    return render(
        "comparison.html",
        title=f"Comparison · {first.task}",
        task=first.task,
        subtitle=[
            first.env,
            f"{len(entrants)} policies",
            origin["started"].replace("T", " ")[:16],
        ],
        early=[entrant for entrant in entrants if entrant.results.run.error],
        seeds=f"the same {len(seeds)} seeds, {first.simulation_time:g} s each",
        entrants=[_entrant(entrant, seeds) for entrant in entrants],
        contests=[_contest(contest, len(contests)) for contest in contests],
        differing=f"{len(differing)} of {len(seeds)} differ",
        table=_table(entrants, seeds, differing),
        filmed=any(entrant.films for entrant in entrants),
        command=origin["command"],
    )


def _entrant(entrant: Entrant, seeds: Sequence[int]) -> dict[str, Any]:
    results, rate, episodes = entrant.results, entrant.rate, entrant.episodes
    ms, steps = results.run.inference_ms, results.summary.mean_steps
    facts = [f"{rate.successes} of {rate.trials}"]
    if steps is not None:
        facts.append(f"mean length {steps / results.control_fps:.1f} s")
    if ms.median is not None and ms.p95 is not None:
        facts.append(f"inference {ms.median:.1f} ms median, {ms.p95:.1f} ms p95")
    if results.summary.starved_steps:
        facts.append(f"{results.summary.starved_steps} starved steps")
    if rate.interval is not None:
        facts.append(f"95 % Wilson interval {rate.interval} %")
    played = {seed: episode.ended_by for seed, episode in episodes.items()}
    return {
        "label": entrant.label,
        "report": entrant.report,
        "description": entrant.description,
        "rate": rate,
        "facts": facts,
        "cells": [(seed, played.get(seed, "absent")) for seed in seeds],
        "origin": {
            "command": " ".join(results.run.command),
            "started": results.run.started,
            "player": results.player,
            "policy": results.run.policy,
            "versions": results.run.versions,
        },
    }


def _contest(contest: Contest, count: int) -> dict[str, Any]:
    pairs, first = contest.pairs, contest.first
    if pairs.difference is None:
        return {"contest": contest}
    low, high = pairs.interval
    better = contest.significant and pairs.difference > 0
    worse = contest.significant and pairs.difference < 0
    difference = f"{100 * pairs.difference:+.1f} points".replace("-", "−")
    ends = f"{100 * low:+.1f} … {100 * high:+.1f} points".replace("-", "−")
    facts = [
        ("Difference of success rates", difference),
        ("95 % interval of it (Newcombe, paired)", ends),
        ("Exact McNemar test, two-sided", f"p = {pairs.p_value:.3g}"),
    ]
    if count > 1:
        facts.append((f"corrected for {count} pairs (Holm)", f"p = {contest.p_value:.3g}"))
    facts.append(("Seeds compared", str(pairs.count)))
    if contest.left_out:
        facts.append(("Seeds left out, not finished by both", str(contest.left_out)))
    if contest.joint_steps is not None:
        mine, theirs = (steps / first.results.control_fps for steps in contest.joint_steps)
        where = f"Mean length on the {pairs.both} seeds that both solved"
        facts.append((where, f"{mine:.2f} s → {theirs:.2f} s"))
    return {
        "contest": contest,
        "kind": "success" if better else "timeout" if worse else "neutral",
        "difference": difference,
        "ends": ends,
        "left": 50 * (1 + low),
        "width": 50 * (high - low),
        "at": 50 * (1 + pairs.difference),
        "facts": facts,
    }


def _differing(entrants: Sequence[Entrant]) -> set[int]:
    seeds = seeds_of(entrants)
    outcomes = [entrant.finished for entrant in entrants]
    return {seed for seed in seeds if len({o[seed].success for o in outcomes if seed in o}) > 1}


def _table(
    entrants: Sequence[Entrant], seeds: Sequence[int], differing: set[int]
) -> list[dict[str, Any]]:
    played = [
        ({one.seed: (i, one) for i, one in enumerate(entrant.results.episodes)}, entrant.films)
        for entrant in entrants
    ]
    rows = []
    for seed in sorted(seeds, key=lambda seed: (seed not in differing, seed)):
        outcomes: list[dict[str, Any]] = []
        for entrant, (episodes, films) in zip(entrants, played, strict=True):
            index, episode = episodes.get(seed, (None, None))
            outcomes.append(
                {
                    "label": entrant.label,
                    "episode": episode,
                    "outcome": episode and (episode.failure_cause or "").replace("_", " "),
                    "seconds": episode and episode.steps / entrant.results.control_fps,
                    "report": entrant.report,
                    "index": index,
                    "film": films.get(seed),
                }
            )
        rows.append(
            {
                "seed": seed,
                "differs": seed in differing,
                "outcomes": outcomes,
                "films": any(outcome["film"] for outcome in outcomes),
            }
        )
    return rows
