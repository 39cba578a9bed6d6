"""Line charts as SVG text: nothing to install, nothing to load, sharp at every size.

Colours are CSS classes (``t-measured``, ``t-red``, …), so one chart serves light and dark pages.
"""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray

from positronic.inference.pages.rendering import render

WIDTH, HEIGHT = 360, 168
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 30, 24
_FRAME = {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "top": TOP}

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
) -> Markup:
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

    ticks, seconds = nice_ticks(low, high), nice_ticks(0.0, duration, 4)
    texts = [_number(tick, seconds) for tick in seconds]
    return render(
        "chart.svg",
        **_FRAME,
        title=title,
        unit=unit,
        duration=duration,
        foot=TOP + height,
        legend=_legend(lines),
        rows=[(y(tick), _number(tick, ticks)) for tick in ticks],
        columns=list(zip(map(x, seconds), [*texts[:-1], f"{texts[-1]} s"], strict=True)),
        marks=[x(t) for t in marks],
        drawn=[(line, _path(line, x, y, duration)) for line in lines],
    )


def _limits(lines: Sequence[Line]) -> tuple[float, float]:
    arrays = [np.asarray(line.values, dtype=np.float64).ravel() for line in lines]
    values = np.concatenate(arrays) if arrays else np.zeros(0)
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    # A still quantity is drawn as a flat line in the middle, not as magnified noise; half of each
    # first, since the largest numbers differ by more than a float can hold.
    pad = max(0.12 * (high / 2 - low / 2), 0.005, 1e-9 * max(abs(low), abs(high)))
    bound = sys.float_info.max / 4
    return max(low - pad, -bound), min(high + pad, bound)


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


def _legend(lines: Sequence[Line]) -> list[dict[str, Any]]:
    entries, right = [], WIDTH - RIGHT
    for line in reversed(lines):
        right -= round(6.4 * len(line.label))
        entries.append({"x": right, "line": line})
        right -= 28
    return entries if len(lines) > 1 else []


def _number(value: float, ticks: Sequence[float]) -> str:
    step = min((b - a for a, b in pairwise(ticks)), default=abs(value) or 1.0)
    return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"
