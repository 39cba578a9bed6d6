"""Success over inference delay, as a chart and a table."""

from collections.abc import Sequence
from html import escape

from positronic.inference.plots import nice_ticks
from positronic.inference.results import RunResult, jump_summary, rate_of
from positronic.inference.statistics import Rate

WIDTH, HEIGHT = 560, 240
LEFT, RIGHT, TOP, BOTTOM = 48, 16, 14, 40
CAP = 4  # half the width of an error bar's ends


def delay_section(run: RunResult) -> str:
    """Return the section of a report on success over delay; nothing without several delays."""
    if not run.by_delay:
        return ""
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
            f"{rate.interval} %",
            "–" if mean is None else f"{mean:.1f} s",
            f"{starved} of {steps}",
            "–" if jumps["mean_mm"] is None else f"{jumps['mean_mm']:.1f} mm",
        ]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return (
        '<section aria-labelledby="delay"><h2 id="delay">Success over inference delay'
        f"<small>{escape(run.player)} player</small></h2>"
        f'<div class="card"><figure class="curve">{error_bar_chart(points)}</figure>'
        '<div class="scroll inset"><table><thead><tr><th>Delay</th><th>Successes</th><th>Rate</th>'
        "<th>95 % Wilson interval</th><th>Mean time to success</th><th>Starved steps</th>"
        f"<th>Mean jump</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        '<p class="note">Each inference was charged the delay in simulated time; the first of a'
        " rollout, while the robot stands still, was not. The same seeds were played at each"
        " delay. A step is starved when no action was there in time for it; a jump is how far the"
        " commanded position moves where one chunk of actions follows another.</p></div></section>"
    )


def error_bar_chart(points: Sequence[tuple[float, Rate]]) -> str:
    """Draw success rates with their 95 % Wilson intervals over delays in seconds, as ``<svg>``."""
    longest = max(delay for delay, _ in points) or 1.0
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(delay: float) -> float:
        # Room beside the first and the last point, so that no error bar lies on the edge.
        return LEFT + width * (0.04 + 0.92 * delay / longest)

    def y(share: float) -> float:
        return TOP + height * (1 - share)

    few = nice_ticks(0.0, longest)
    parts = [
        f'<svg class="chart still" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        ' aria-label="Success rate over inference delay">'
    ]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{LEFT + width}" y1="{y(share):.1f}"'
            f' y2="{y(share):.1f}"/><text class="tick" x="{LEFT - 6}" y="{y(share) + 3.5:.1f}"'
            f' text-anchor="end">{100 * share:.0f} %</text>'
        )
    for delay in sorted(delay for delay, _ in points) if len(points) <= 8 else few:
        parts.append(
            f'<text class="tick" x="{x(delay):.1f}" y="{TOP + height + 16}"'
            f' text-anchor="middle">{delay:g}</text>'
        )
    parts.append(
        f'<text class="tick" x="{LEFT + width / 2}" y="{HEIGHT - 4}" text-anchor="middle">'
        "seconds charged for an inference</text>"
    )
    drawn = sorted((delay, rate) for delay, rate in points if rate.value is not None)
    path = "L".join(f"{x(delay):.1f} {y(rate.value or 0.0):.1f}" for delay, rate in drawn)
    parts.append(f'<path class="line t-measured" d="M{path}"/>' if drawn else "")
    for delay, rate in drawn:
        at, low, high = x(delay), y(rate.interval.low), y(rate.interval.high)
        bar = f"M{at:.1f} {low:.1f}V{high:.1f}"
        ends = "".join(f"M{at - CAP:.1f} {end:.1f}h{2 * CAP}" for end in (low, high))
        parts.append(
            f'<path class="line t-measured whisker" d="{bar}{ends}"/>'
            f'<circle class="point" cx="{at:.1f}" cy="{y(rate.value or 0.0):.1f}" r="4">'
            f"<title>{delay:g} s: {escape(str(rate))}</title></circle>"
        )
    return "".join([*parts, "</svg>"])
