"""``open_loop.html``: a policy's actions beside recorded ones, as one self-contained page."""

from collections.abc import Mapping, Sequence
from typing import Any

from positronic.inference.open_loop.lerobot_data import VectorComparison
from positronic.inference.open_loop.tracks import UNITS, Comparison
from positronic.inference.pages.rendering import render
from positronic.inference.plots import Line, line_chart

SHOWN = 12
AXES = "xyz"
HOLDING = (
    "the pose and grip that the robot had at the last one: a policy that has learned something"
    " stays below it"
)
# Nothing is known of where a robot stands that is not the project's.
HOLDING_VECTORS = (
    "the action that was recorded before the last one: a policy that has learned something comes"
    " near it or below"
)


def render_page(
    results: Sequence[Comparison],
    summary: Mapping[str, Mapping[str, float]],
    *,
    task: str,
    subtitle: Sequence[str],
    origin: Mapping[str, str],
    note: str | None = None,
    error: str | None,
) -> str:
    """Return the page as HTML.

    Args:
        results: The episodes; the first ``SHOWN`` are drawn.
        summary: Mean absolute errors over all steps: ``{"served": {...}, "hold": {...}}``.
        task: The heading.
        subtitle: Short facts under it.
        origin: Where the policy and the recordings came from, as names and values.
        note: What readers must know before they trust the figures, if anything.
        error: What ended the check early, if anything did.
    """
    return render(
        "open_loop.html",
        title=f"Open loop · {task}",
        task=task,
        subtitle=subtitle,
        results=results,
        summary=summary,
        units=UNITS,
        holding=HOLDING,
        cards=[_card(result) for result in results[:SHOWN]],
        table=[{"result": result, "errors": _errors(result)} for result in results],
        origin=origin,
        note=note,
        error=error,
    )


def render_vectors(
    results: Sequence[VectorComparison],
    names: Sequence[str],
    summary: Mapping[str, Mapping[str, float]],
    *,
    origin: Mapping[str, str],
    note: str | None,
) -> str:
    """Return the page of action vectors as HTML; arguments as for `render_page`."""
    shown = results[:SHOWN]
    return render(
        "open_loop.html",
        title=f"Open loop · {origin['dataset']}",
        task="Recorded actions",
        subtitle=[f"{name} {value}" for name, value in origin.items()],
        results=results,
        summary=summary,
        units=dict.fromkeys(names, ""),
        holding=HOLDING_VECTORS,
        cards=[_vector_card(result, names) for result in shown],
        table=[
            {"result": r, "errors": list(zip(r.errors("served"), r.errors("hold"), strict=True))}
            for r in results
        ],
        origin=origin,
        note=note,
        error=None,
    )


def _vector_card(result: VectorComparison, names: Sequence[str]) -> dict[str, Any]:
    duration = float(result.times[-1] + result.times[1]) if len(result.times) > 1 else 0.1
    drawn = []
    for i, name in enumerate(names):
        recorded = Line("recorded", result.times, result.recorded[:, i], "commanded", dashed=True)
        served = Line("served", result.times, result.served[:, i])
        drawn.append(
            line_chart(name, "", [recorded, served], duration=duration, marks=result.asked)
        )
    facts = f"{len(result.times)} steps, {duration:.1f} s · {len(result.asked)} inferences"
    return {"result": result, "facts": facts, "charts": drawn}


def _card(result: Comparison) -> dict[str, Any]:
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
    drawn = [
        line_chart(title, unit, lines, duration=duration, marks=result.asked, limits=limits)
        for title, unit, lines, limits in charts
    ]
    facts = (
        f"{len(times)} steps, {duration:.1f} s · {len(result.asked)} inferences · "
        f"position {served['position'].mean():.1f} mm, rotation {served['rotation'].mean():.2f}°, "
        f"grip {served['grip'].mean():.3f}"
    )
    return {"result": result, "facts": facts, "charts": drawn}


def _targets(result: Comparison, axis: int) -> list[Line]:
    times = result.times
    return [
        Line("robot", times, result.present.pose[:, axis], "third"),
        Line("recorded", times, result.recorded.pose[:, axis], "commanded", dashed=True),
        Line("served", times, result.served.pose[:, axis]),
    ]


def _errors(result: Comparison) -> list[tuple[float, float]]:
    """Mean errors of the served actions and of holding still, in each dimension."""
    served, hold = result.served.errors(result.recorded), result.hold.errors(result.recorded)
    return [(float(served[name].mean()), float(hold[name].mean())) for name in UNITS]
