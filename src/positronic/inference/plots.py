"""Small line charts as SVG text: nothing to install, nothing to load, sharp at every size.

Colours are CSS classes (``t-measured``, ``t-red``, …), so one chart serves light and dark pages.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

WIDTH, HEIGHT = 360, 168
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 30, 24

type Scale = Callable[[float], float]


@dataclass(frozen=True)
class Line:
    """One curve: ``times`` in seconds and ``values``, both of shape (n,).

    ``tone`` names the colour, ``dashed`` marks what was asked for (a command) beside what was
    measured, ``held`` draws a value that stays until the next one comes.
    """

    label: str
    times: ArrayLike
    values: ArrayLike
    tone: str = "measured"
    dashed: bool = False
    held: bool = False


def nice_ticks(low: float, high: float, least: int = 3) -> list[float]:
    """Return at least ``least`` multiples of 1, 2 or 5 inside [``low``, ``high``], few of them."""
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    power = 10.0 ** math.floor(math.log10(span))
    for step in (m * power for m in (5, 2, 1, 0.5, 0.2, 0.1)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 >= least:
            break
    # Rounding away float dust: 3 * 0.1 is to be printed and placed as 0.3.
    digits = max(0, 2 - math.floor(math.log10(step)))
    return [round(i * step, digits) + 0.0 for i in range(first, last + 1)]


def line_chart(
    title: str,
    unit: str,
    lines: Sequence[Line],
    *,
    duration: float,
    marks: Sequence[float] = (),
    limits: tuple[float, float] | None = None,
) -> str:
    """Draw ``lines`` over [0, ``duration``] seconds and return one ``<svg>`` element.

    ``marks`` are instants to be ticked at the foot of the chart (the policy's inference calls);
    ``limits`` fixes the range of values, which otherwise follows the data.
    """
    duration = max(duration, 1e-6)
    low, high = limits or _limits(lines)
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(t: float) -> float:
        return LEFT + width * t / duration

    def y(value: float) -> float:
        return TOP + height * (high - value) / (high - low)

    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" data-left="{LEFT}"'
        f' data-width="{width}" data-duration="{duration:.4f}"'
        f' aria-label="{escape(title)} over time">',
        f'<text class="title" x="0" y="14">{escape(title)}'
        f'<tspan class="unit" dx="6">{escape(unit)}</tspan></text>',
        _legend(lines),
    ]
    ticks = nice_ticks(low, high)
    for tick in ticks:
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{LEFT + width}"'
            f' y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
            f'<text class="tick" x="{LEFT - 6}" y="{y(tick) + 3.5:.1f}" text-anchor="end">'
            f"{_number(tick, ticks)}</text>"
        )
    seconds = nice_ticks(0.0, duration, 4)
    for tick in seconds:
        text = _number(tick, seconds) + (" s" if tick == seconds[-1] else "")
        parts.append(
            f'<text class="tick" x="{x(tick):.1f}" y="{HEIGHT - 6}"'
            f' text-anchor="middle">{text}</text>'
        )
    foot = TOP + height
    parts += [
        f'<line class="mark" x1="{x(t):.1f}" x2="{x(t):.1f}" y1="{foot - 4}" y2="{foot}"/>'
        for t in marks
    ]
    for line in lines:
        dashed = " dashed" if line.dashed else ""
        parts.append(
            f'<path class="line t-{line.tone}{dashed}" d="{_path(line, x, y, duration)}"/>'
        )
    parts.append(f'<line class="cursor" x1="{LEFT}" x2="{LEFT}" y1="{TOP}" y2="{foot}"/></svg>')
    return "".join(parts)


def _limits(lines: Sequence[Line]) -> tuple[float, float]:
    arrays = [np.asarray(line.values, dtype=np.float64).ravel() for line in lines]
    values = np.concatenate(arrays) if arrays else np.zeros(0)
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    # A still quantity is drawn as a flat line in the middle, not as magnified noise.
    pad = max(0.06 * (high - low), 0.005)
    return low - pad, high + pad


def _path(line: Line, x: Scale, y: Scale, duration: float) -> str:
    times: NDArray[np.float64] = np.asarray(line.times, dtype=np.float64)
    values: NDArray[np.float64] = np.asarray(line.values, dtype=np.float64)
    if len(times) != len(values):
        raise ValueError(f"{line.label}: {len(times)} times for {len(values)} values")
    pieces: list[str] = []
    pen, previous = "M", math.nan
    for t, value in zip(times, values, strict=True):
        if not math.isfinite(value):
            pen = "M"  # a gap, not a line across it
            continue
        if line.held and pen == "L":
            pieces.append(f"L{x(t):.1f} {y(previous):.1f}")
        pieces.append(f"{pen}{x(t):.1f} {y(value):.1f}")
        pen, previous = "L", float(value)
    if line.held and pieces:
        pieces.append(f"L{x(duration):.1f} {y(previous):.1f}")
    return "".join(pieces)


def _legend(lines: Sequence[Line]) -> str:
    parts, right = [], WIDTH - RIGHT
    for line in reversed(lines):
        right -= round(6.4 * len(line.label))
        dashed = " dashed" if line.dashed else ""
        parts.append(
            f'<text class="legend" x="{right}" y="14">{escape(line.label)}</text>'
            f'<line class="line t-{line.tone}{dashed}"'
            f' x1="{right - 18}" x2="{right - 5}" y1="10" y2="10"/>'
        )
        right -= 28
    return "".join(parts) if len(lines) > 1 else ""


def _number(value: float, ticks: Sequence[float]) -> str:
    step = min((b - a for a, b in pairwise(ticks)), default=abs(value) or 1.0)
    return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"
