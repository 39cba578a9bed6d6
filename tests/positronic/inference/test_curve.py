import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from positronic.inference.curve import HEIGHT, LEFT, TOP, WIDTH, delay_section, error_bar_chart
from positronic.inference.report import render_report
from positronic.inference.results import RunResult
from positronic.inference.statistics import Rate
from tests.positronic.inference.sample import sample_run

NAMESPACE = "{http://www.w3.org/2000/svg}"


def curve_run() -> RunResult:
    run = sample_run(10, failures=(3,))
    slow = [
        replace(e, delay=0.4, starved=30, ended_by="success" if i < 4 else "timeout")
        for i, e in enumerate(run.episodes)
    ]
    run.episodes = [replace(e, delay=0.0) for e in run.episodes] + slow
    run.delays = (0.0, 0.4)
    run.player = "asynchronous"
    return run


def test_rates_and_intervals_are_drawn_to_scale() -> None:
    svg = error_bar_chart([(0.4, Rate(4, 10)), (0.0, Rate(9, 10)), (0.2, Rate(0, 0))])
    root = ElementTree.fromstring(svg)
    points = [(float(e.get("cx", 0)), float(e.get("cy", 0))) for e in root.iter() if e.get("cx")]
    assert len(points) == 2  # nothing was finished at 0.2 s
    height = HEIGHT - TOP - 40
    for (x, y), share in zip(points, (0.9, 0.4), strict=True):
        assert LEFT < x < WIDTH
        assert (TOP + height - y) / height == pytest.approx(share, abs=1e-3)
    whiskers = re.findall(r'class="line t-measured whisker" d="M([\d.]+) ([\d.]+)V([\d.]+)', svg)
    assert [float(x) for x, _, _ in whiskers] == pytest.approx([x for x, _ in points])
    low, high = ((TOP + height - float(y)) / height for y in whiskers[0][1:])
    interval = Rate(9, 10).interval
    assert interval is not None
    assert (low, high) == pytest.approx((interval.low, interval.high), abs=1e-3)


def test_the_report_shows_the_curve_and_no_interval_of_all_delays_together() -> None:
    run = curve_run()
    page = render_report(run, {})
    assert "Success over inference delay" in page
    assert "<td>0.4 s</td><td>4/10</td><td>40.0 %</td>" in page
    assert "<td>0 s</td><td>9/10</td><td>90.0 %</td>" in page
    assert "at all delays together" in page
    assert "The true success rate lies" not in page
    summary = run.to_json()["summary"]
    assert summary["wilson_95"] is None
    assert [row["starved_steps"] for row in summary["by_delay"]] == [0, 300]


def test_one_delay_is_no_curve() -> None:
    run = sample_run(5)
    run.delays = (0.2,)
    assert delay_section(run) == ""
    assert run.to_json()["summary"]["wilson_95"] is not None
    assert "The true success rate lies" in render_report(run, {})
