import re
from xml.etree import ElementTree

import numpy as np
import pytest

from positronic.inference.plots import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Line,
    line_chart,
    nice_ticks,
)

SVG = "{http://www.w3.org/2000/svg}"


def paths(svg: str) -> list[list[tuple[float, float]]]:
    """Points of every drawn curve, in pixels."""
    found = re.findall(r'<path [^>]* d="([^"]*)"', svg)
    return [
        [(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.-]+) ([\d.-]+)", d)] for d in found
    ]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.5, 1.0]),
        (0.0, 20.0, [0.0, 10.0, 20.0]),
        (0.0, 9.0, [0.0, 2.0, 4.0, 6.0, 8.0]),
        (-0.1, 0.3, [-0.1, 0.0, 0.1, 0.2, 0.3]),
        (0.3, 0.3, [0.3]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert nice_ticks(low, high) == expected


def test_ticks_never_leave_the_range() -> None:
    rng = np.random.default_rng(0)
    for low, span in rng.uniform([-50, 1e-4], [50, 90], (200, 2)).tolist():
        ticks = nice_ticks(low, low + span)
        assert 3 <= len(ticks) <= 6
        assert all(low - 1e-6 <= tick <= low + span + 1e-6 for tick in ticks)


def test_samples_are_drawn_where_they_belong() -> None:
    svg = line_chart("x", "m", [Line("a", [0, 1, 2], [0.0, 1.0, 0.5])], duration=2, limits=(0, 1))
    (points,) = paths(svg)
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    expected = [(LEFT, bottom), ((LEFT + right) / 2, TOP), (right, (TOP + bottom) / 2)]
    np.testing.assert_allclose(points, expected)


def test_a_held_value_is_a_staircase_to_the_end() -> None:
    svg = line_chart("x", "", [Line("a", [0, 1], [0, 1], held=True)], duration=2, limits=(0, 1))
    (points,) = paths(svg)
    assert [y for _, y in points] == [HEIGHT - BOTTOM, HEIGHT - BOTTOM, TOP, TOP]
    assert points[-1][0] == WIDTH - RIGHT


def test_gaps_are_not_bridged() -> None:
    svg = line_chart("x", "", [Line("a", [0, 1, 2, 3], [0, np.nan, 1, 0])], duration=3)
    assert svg.count("M") == 2
    assert len(paths(svg)[0]) == 3


def test_nothing_recorded_still_draws() -> None:
    svg = line_chart("x", "m", [Line("a", [], [])], duration=0)
    assert paths(svg) == [[]]


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="2 times for 1 values"):
        line_chart("x", "m", [Line("a", [0, 1], [0])], duration=1)


def test_chart_is_one_well_formed_element_with_escaped_text() -> None:
    lines = [Line("<a>", [0, 1], [0, 1]), Line("b & c", [0, 1], [1, 0], "red", dashed=True)]
    svg = line_chart('"grip" <1>', "µ", lines, duration=1, marks=[0.0, 0.5])
    root = ElementTree.fromstring(svg)
    assert root.tag == "svg"
    assert "<a>" in "".join(root.itertext())
    assert len([e for e in root if e.get("class") == "mark"]) == 2
