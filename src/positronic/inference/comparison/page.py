"""``comparison.html``: several policies on the same seeds, on one page that needs nothing else."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from positronic.inference.comparison.contest import Contest, seeds_of
from positronic.inference.comparison.entrants import Entrant
from positronic.inference.panels import WORDS, pill
from positronic.inference.results import flatten


def render_page(
    entrants: Sequence[Entrant], contests: Sequence[Contest], origin: Mapping[str, Any]
) -> str:
    """Return the page as HTML; ``origin`` has ``started`` and ``command``."""
    page = Template(_asset("compare.html"))
    first = entrants[0].document
    seeds, differing = seeds_of(entrants), _differing(entrants)
    subtitle = [first["env"], f"{len(entrants)} policies", origin["started"].replace("T", " ")[:16]]
    return page.substitute(
        title=escape(f"Comparison · {first['task']}"),
        css=_asset("report.css"),
        task=escape(first["task"]),
        subtitle="".join(f"<span>{escape(part)}</span>" for part in subtitle),
        banner=_banner(entrants),
        seeds=f"the same {len(seeds)} seeds, {first['simulation_time']:g} s each",
        entrants="".join(_entrant(entrant, seeds) for entrant in entrants),
        contests="".join(_contest(contest, len(contests)) for contest in contests),
        differing=f"{len(differing)} of {len(seeds)} differ",
        table=_table(entrants, seeds, differing),
        origin=_origin(entrants, origin),
    )


def _asset(name: str) -> str:
    return files("positronic.inference").joinpath(name).read_text(encoding="utf-8")


def _banner(entrants: Sequence[Entrant]) -> str:
    early = [
        f"<b>{escape(entrant.label)} stopped early</b>: {escape(entrant.document['run']['error'])}."
        for entrant in entrants
        if entrant.document["run"]["error"]
    ]
    if not early:
        return ""
    text = " ".join(early)
    return (
        f'<div class="banner" role="note">{text} A pair of policies is compared on the seeds that'
        " both finished.</div>"
    )


def _entrant(entrant: Entrant, seeds: Sequence[int]) -> str:
    rate, episodes = entrant.rate, entrant.episodes
    low, high, value = (100 * x for x in (rate.interval.low, rate.interval.high, rate.value or 0.0))
    cells = []
    for seed in seeds:
        ended_by = episodes.get(seed, {}).get("ended_by", "absent")
        text = f"seed {seed}: {WORDS.get(ended_by, 'not played')}"
        cells.append(
            f'<li><a class="{ended_by}" href="#seed-{seed}" title="{text}" aria-label="{text}">'
            "</a></li>"
        )
    name = escape(entrant.label)
    if entrant.report is not None:
        name = f'<a href="{escape(entrant.report)}">{name}</a>'
    ms = entrant.document["run"]["inference_ms"]
    steps = entrant.document["summary"]["mean_steps"]
    facts = [f"{rate.successes} of {rate.trials}"]
    if steps is not None:
        facts.append(f"mean length {steps / entrant.document['control_fps']:.1f} s")
    if ms["median"] is not None:
        facts.append(f"inference {ms['median']:.1f} ms median, {ms['p95']:.1f} ms p95")
    starved = entrant.document["summary"]["starved_steps"]
    if starved:
        facts.append(f"{starved} starved steps")
    mark = "" if rate.value is None else f'<span class="rate" style="left:{value:.2f}%"></span>'
    shown = "–" if rate.value is None else f"{value:.1f} %"
    return (
        f'<article class="entrant"><header><h3>{name}</h3>'
        f'<span class="sub">{escape(entrant.description)}</span><b>{shown}</b></header>'
        f'<div class="scale" role="img" aria-label="{escape(str(rate))}">'
        f'<span class="band" style="left:{low:.2f}%;width:{high - low:.2f}%"></span>{mark}</div>'
        f'<ol class="cells">{"".join(cells)}</ol>'
        f'<p class="key">{"".join(f"<span>{fact}</span>" for fact in facts)}'
        f"<span>95 % Wilson interval {rate.interval} %</span></p></article>"
    )


def _contest(contest: Contest, count: int) -> str:
    pairs, second, first = contest.pairs, contest.second, contest.first
    head = f"<h3>{escape(second.label)} against {escape(first.label)}</h3>"
    if pairs.difference is None:
        head = f'<article class="card contest"><header>{head}</header>'
        return head + "<p>There is no seed that both finished.</p></article>"
    low, high = pairs.interval
    better = contest.significant and pairs.difference > 0
    worse = contest.significant and pairs.difference < 0
    kind = "success" if better else "timeout" if worse else "neutral"
    difference = f"{100 * pairs.difference:+.1f} points".replace("-", "−")
    label = f"difference of success rates {difference}"
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
        fps = first.document["control_fps"]
        mine, theirs = (steps / fps for steps in contest.joint_steps)
        where = f"Mean length on the {pairs.both} seeds that both solved"
        facts.append((where, f"{mine:.2f} s → {theirs:.2f} s"))
    items = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts)
    left, width = 50 * (1 + low), 50 * (high - low)
    return (
        f'<article class="card contest"><header>{head}'
        f'<span class="pill {kind}">{escape(contest.verdict)}</span></header>'
        f'<div class="panels two"><div>{_square(contest)}</div><div>'
        f'<div class="scale" role="img" aria-label="{label}, 95 % interval {ends}">'
        f'<span class="zero"></span><span class="band" style="left:{left:.2f}%;width:{width:.2f}%">'
        f'</span><span class="rate" style="left:{50 * (1 + pairs.difference):.2f}%"></span></div>'
        '<div class="ticks"><span>−100</span><span style="left:25%">−50</span>'
        '<span style="left:50%">0</span><span style="left:75%">+50</span><span>+100 points</span>'
        f'</div><dl class="facts">{items}</dl></div></div></article>'
    )


def _square(contest: Contest) -> str:
    pairs, first, second = contest.pairs, contest.first.label, contest.second.label
    return (
        f'<table class="square"><thead><tr><th></th><th>{escape(second)} succeeded</th>'
        f"<th>{escape(second)} failed</th></tr></thead><tbody>"
        f'<tr><th class="text">{escape(first)} succeeded</th><td>{pairs.both}</td>'
        f'<td class="discordant">{pairs.first_only}</td></tr>'
        f'<tr><th class="text">{escape(first)} failed</th>'
        f'<td class="discordant">{pairs.second_only}</td><td>{pairs.neither}</td></tr>'
        "</tbody></table>"
        '<p class="note">Only the seeds on which the two differ tell which is better.</p>'
    )


def _differing(entrants: Sequence[Entrant]) -> set[int]:
    seeds = seeds_of(entrants)
    outcomes = [entrant.finished for entrant in entrants]
    return {seed for seed in seeds if len({o[seed]["success"] for o in outcomes if seed in o}) > 1}


def _table(entrants: Sequence[Entrant], seeds: Sequence[int], differing: set[int]) -> str:
    head = "".join(
        f'<th class="text">{escape(entrant.label)}</th><th>Time</th>' for entrant in entrants
    )
    rows = []
    for seed in sorted(seeds, key=lambda seed: (seed not in differing, seed)):
        cells = []
        for entrant in entrants:
            episode = entrant.episodes.get(seed)
            if episode is None:
                cells.append('<td class="text soft">not played</td><td></td>')
                continue
            seconds = episode["steps"] / entrant.document["control_fps"]
            cells.append(
                f'<td class="text">{pill(episode["ended_by"])}</td><td>{seconds:.1f} s</td>'
            )
        kind = ' class="differs"' if seed in differing else ""
        rows.append(f'<tr id="seed-{seed}"{kind}><td>{seed}</td>{"".join(cells)}</tr>')
    return (
        f"<table><thead><tr><th>Seed</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _origin(entrants: Sequence[Entrant], origin: Mapping[str, Any]) -> str:
    parts = [
        "<h3>Command</h3>",
        f"<pre><code>{escape(' '.join(origin['command']))}</code></pre>",
    ]
    for entrant in entrants:
        facts = flatten(
            {
                "command": " ".join(entrant.document["run"]["command"]),
                "started": entrant.document["run"]["started"],
                "player": entrant.document["player"],
                "policy": entrant.document["run"]["policy"],
                "versions": entrant.document["run"]["versions"],
            }
        )
        items = "".join(
            f"<dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd>"
            for name, value in facts.items()
        )
        parts.append(f"<h3>{escape(entrant.label)}</h3><dl>{items}</dl>")
    parts.append(
        '<p class="note">Rates have Wilson score intervals, differences the interval of Newcombe'
        " for paired proportions (1998, method 10). The test is the exact binomial form of"
        " McNemar's (1947) on the seeds that differ, with Holm's correction (1979) where there are"
        " several pairs.</p>"
    )
    return "".join(parts)
