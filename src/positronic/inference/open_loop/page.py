"""``open_loop.html``: served actions beside recorded ones, on one page that needs nothing else."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from positronic.inference.open_loop.tracks import UNITS, Comparison
from positronic.inference.plots import Line, line_chart

SHOWN = 12
AXES = "xyz"


def render_page(
    results: Sequence[Comparison],
    summary: Mapping[str, Mapping[str, float]],
    *,
    task: str,
    subtitle: Sequence[str],
    origin: Mapping[str, str],
    error: str | None,
) -> str:
    """Return the page as HTML.

    Args:
        results: The episodes; the first ``SHOWN`` are drawn.
        summary: Mean absolute errors over all steps: ``{"served": {...}, "hold": {...}}``.
        task: The heading.
        subtitle: Short facts under it.
        origin: Where the policy and the recordings came from, as names and values.
        error: What ended the check early, if anything did.
    """
    page = Template(_asset("open_loop.html"))
    shown = results[:SHOWN]
    return page.substitute(
        title=escape(f"Open loop · {task}"),
        css=_asset("report.css"),
        task=escape(task),
        subtitle="".join(f"<span>{escape(part)}</span>" for part in subtitle),
        banner=_banner(error, len(results)),
        summary=_summary(summary),
        shown=f"{len(shown)} of {len(results)}",
        episodes="".join(_card(result) for result in shown),
        table=_table(results),
        origin=_definitions(origin),
    )


def _asset(name: str) -> str:
    return files("positronic.inference").joinpath(name).read_text(encoding="utf-8")


def _banner(error: str | None, done: int) -> str:
    if error is None:
        return ""
    return (
        f'<div class="banner" role="note"><b>This check stopped early</b> after {done} '
        f"episodes: {escape(error)}</div>"
    )


def _summary(summary: Mapping[str, Mapping[str, float]]) -> str:
    rows = []
    for name, unit in UNITS.items():
        served, hold = summary["served"][name], summary["hold"][name]
        better = served < hold
        ratio = f"{served / hold:.2f}" if hold > 0 else "–"
        rows.append(
            f'<tr><td class="text">{name}</td><td class="text soft">{unit}</td>'
            f"<td><b>{served:.3g}</b></td><td>{hold:.3g}</td>"
            f'<td class="{"good" if better else "bad"}">{ratio}</td></tr>'
        )
    return (
        '<table><thead><tr><th class="text">Mean absolute error</th><th class="text"></th>'
        "<th>served</th><th>holding still</th><th>ratio</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
        '<p class="sub">The policy saw recorded observations and its actions moved nothing. '
        "Holding still means commanding, until the next inference, the pose and grip that the "
        "robot had at the last one: a policy that has learned something stays below it.</p>"
    )


def _card(result: Comparison) -> str:
    served, hold = result.served.errors(result.recorded), result.hold.errors(result.recorded)
    step = result.times[1] - result.times[0] if len(result.times) > 1 else 0.1
    duration = float(result.times[-1] + step)
    charts: list[tuple[str, str, list[Line], tuple[float, float] | None]] = [
        (f"Target {axis}", "m", _targets(result, index), None) for index, axis in enumerate(AXES)
    ]
    times = result.times
    grip = [
        Line("recorded", times, result.recorded.grip, "commanded", dashed=True, held=True),
        Line("served", times, result.served.grip, held=True),
    ]
    low, high = min(0.0, result.served.grip.min()), max(1.0, result.served.grip.max())
    charts.append(("Target grip", "1 = open", grip, (float(low) - 0.06, float(high) + 0.06)))
    for name, title in (("position", "Position error"), ("rotation", "Rotation error")):
        lines = [Line("holding", times, hold[name], "third"), Line("served", times, served[name])]
        charts.append((title, UNITS[name], lines, None))
    drawn = "".join(
        "<figure>"
        + line_chart(title, unit, lines, duration=duration, marks=result.asked, limits=limits)
        + "</figure>"
        for title, unit, lines, limits in charts
    )
    facts = (
        f"{len(times)} steps, {duration:.1f} s · {len(result.asked)} inferences · "
        f"position {served['position'].mean():.1f} mm, rotation {served['rotation'].mean():.2f}°, "
        f"grip {served['grip'].mean():.3f}"
    )
    return (
        f'<article class="card episode" id="episode-{result.index}"><header>'
        f'<h3>{escape(result.name)}</h3><span class="facts">{escape(facts)}</span></header>'
        f'<div class="panels">{drawn}</div></article>'
    )


def _targets(result: Comparison, axis: int) -> list[Line]:
    times = result.times
    return [
        Line("robot", times, result.present.pose[:, axis], "third"),
        Line("recorded", times, result.recorded.pose[:, axis], "commanded", dashed=True),
        Line("served", times, result.served.pose[:, axis]),
    ]


def _table(results: Sequence[Comparison]) -> str:
    heads = "".join(f"<th>{name} {unit}</th>" for name, unit in UNITS.items())
    rows = []
    for result in results:
        served, hold = result.served.errors(result.recorded), result.hold.errors(result.recorded)
        cells = "".join(
            f"<td>{served[name].mean():.3g} / {hold[name].mean():.3g}</td>" for name in UNITS
        )
        rows.append(
            f'<tr><td class="text">{escape(result.name)}</td><td>{result.index}</td>'
            f"<td>{len(result.times)}</td>{cells}</tr>"
        )
    return (
        f'<table><thead><tr><th class="text">Episode</th><th>Index</th><th>Steps</th>{heads}'
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _definitions(values: Mapping[str, Any]) -> str:
    items = "".join(
        f"<dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd>"
        for name, value in values.items()
    )
    return f"<dl>{items}</dl>"
