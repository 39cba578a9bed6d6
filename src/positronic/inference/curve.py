"""Success rate over inference delay, as an SVG chart and a table."""

from collections.abc import Sequence

from markupsafe import Markup

from positronic.inference.pages.rendering import render
from positronic.inference.plots import nice_ticks
from positronic.inference.results import RunResult, jump_summary, rate_of
from positronic.inference.statistics import Rate

WIDTH, HEIGHT = 560, 240
LEFT, RIGHT, TOP, BOTTOM = 48, 16, 14, 40
CAP = 4  # half the width of an error bar's ends


def delay_section(run: RunResult) -> Markup:
    """Return the section of a report on success over delay; nothing without several delays."""
    if not run.by_delay:
        return Markup()
    points = [(delay, rate_of(episodes)) for delay, episodes in run.by_delay.items()]
    rows = []
    for delay, episodes in run.by_delay.items():
        rate, steps = rate_of(episodes), sum(episode.steps for episode in episodes)
        starved = sum(episode.starved for episode in episodes)
        jumps = jump_summary([jump for episode in episodes for jump in episode.jumps])
        finished = [episode.steps for episode in episodes if episode.success]
        mean = sum(finished) / len(finished) / run.control_fps if finished else None
        cells = [
            f"{delay:g} s",
            f"{rate.successes}/{rate.trials}",
            "–" if rate.value is None else f"{100 * rate.value:.1f} %",
            "–" if rate.interval is None else f"{rate.interval} %",
            "–" if mean is None else f"{mean:.1f} s",
            f"{starved} of {steps}",
            "–" if jumps["mean_mm"] is None else f"{jumps['mean_mm']:.1f} mm",
        ]
        rows.append(cells)
    return render("delays.html", player=run.player, chart=error_bar_chart(points), rows=rows)


def error_bar_chart(points: Sequence[tuple[float, Rate]]) -> Markup:
    """Draw success rates with their 95 % Wilson intervals over delays in seconds, as ``<svg>``."""
    longest = max(delay for delay, _ in points) or 1.0
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(delay: float) -> float:
        # Room beside the first and the last point, so that no error bar lies on the edge.
        return LEFT + width * (0.04 + 0.92 * delay / longest)

    def y(share: float) -> float:
        return TOP + height * (1 - share)

    delays = sorted(delay for delay, _ in points)
    ticks = delays if len(delays) <= 8 else nice_ticks(0.0, longest)
    drawn = sorted(
        (delay, rate.value, rate.interval, rate)
        for delay, rate in points
        if rate.value is not None and rate.interval is not None
    )
    bars = []
    for delay, value, interval, rate in drawn:
        at, low, high = x(delay), y(interval.low), y(interval.high)
        ends = "".join(f"M{at - CAP:.1f} {end:.1f}h{2 * CAP}" for end in (low, high))
        bars.append(
            {
                "x": at,
                "y": y(value),
                "whisker": f"M{at:.1f} {low:.1f}V{high:.1f}{ends}",
                "text": f"{delay:g} s: {rate}",
            }
        )
    line = "L".join(f"{bar['x']:.1f} {bar['y']:.1f}" for bar in bars)
    return render(
        "error_bars.svg",
        **{"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT},
        foot=TOP + height,
        rows=[(y(share), f"{100 * share:.0f} %") for share in (0.0, 0.25, 0.5, 0.75, 1.0)],
        columns=[(x(delay), f"{delay:g}") for delay in ticks],
        path=f"M{line}" if line else "",
        points=bars,
    )
