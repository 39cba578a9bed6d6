"""``report.html``: a whole run on one page that needs nothing else, neither files nor network."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from positronic.inference.curve import delay_section
from positronic.inference.panels import WORDS, episode_card, pill
from positronic.inference.replay import Replay
from positronic.inference.results import EpisodeResult, RunResult, flatten, jump_summary


def choose_shown(episodes: Sequence[EpisodeResult], videos: int) -> list[int]:
    """Choose which rollouts are shown in full: failures first, then successes, at most ``videos``.

    Returns their indices in the order of the run.
    """
    order = sorted(range(len(episodes)), key=lambda i: (episodes[i].success, i))
    return sorted(order[: max(0, videos)], key=lambda i: (episodes[i].success, i))


def render_report(run: RunResult, replays: Mapping[int, Replay]) -> str:
    """Return the page as HTML; ``replays`` holds the rollouts to show in full by their index."""
    page = Template(_asset("report.html"))
    return page.substitute(
        title=escape(f"{_headline(run)} · {run.task}"),
        css=_asset("report.css"),
        js=_asset("report.js"),
        task=escape(run.task),
        subtitle="".join(f"<span>{escape(part)}</span>" for part in _subtitle(run)),
        banner=_banner(run),
        summary=_summary(run, replays),
        delays=delay_section(run),
        shown=_shown(run, replays),
        table=_table(run, replays),
        origin=_origin(run),
    )


def _asset(name: str) -> str:
    return files("positronic.inference").joinpath(name).read_text(encoding="utf-8")


def _headline(run: RunResult) -> str:
    value = run.rate.value
    return "no result" if value is None else f"{100 * value:.1f} %"


def _subtitle(run: RunResult) -> list[str]:
    policy = run.policy
    parts = [run.env]
    name = policy.get("type")
    checkpoint = policy.get("checkpoint_id")
    if name:
        parts.append(f"policy {name}" + (f", checkpoint {checkpoint}" if checkpoint else ""))
    parts.append(run.started.replace("T", " ")[:16])
    return parts


def _banner(run: RunResult) -> str:
    if run.error is None:
        return ""
    done = len(run.episodes)
    return (
        f'<div class="banner" role="note"><b>This run stopped early</b> in rollout {done} of'
        f" {run.count}: {escape(run.error)}. What was not finished does not count;"
        " the success rate is of the rollouts that were.</div>"
    )


def _summary(run: RunResult, replays: Mapping[int, Replay]) -> str:
    rate = run.rate
    if rate.value is None:
        return '<p class="hero">No result</p><p>No rollout was finished.</p>' + _cells(run, replays)
    at = ", at all delays together" if run.by_delay else ""
    return (
        f'<div class="headline"><div><p class="hero">{100 * rate.value:.1f}<small>%</small></p>'
        f"<p>{rate.successes} of {rate.trials} rollouts succeeded{at}</p></div>"
        f'<div class="interval">{_interval(run)}</div></div>'
        + _cells(run, replays)
        + f'<dl class="tiles">{_tiles(run)}</dl>'
    )


def _interval(run: RunResult) -> str:
    rate, interval = run.rate, run.rate.interval
    if run.by_delay:
        return (
            "<p>The same seeds were played at each delay, so all rollouts together give no"
            " confidence interval; each delay has its own below.</p>"
        )
    low, high, value = 100 * interval.low, 100 * interval.high, 100 * (rate.value or 0.0)
    ticks = "".join(f'<span style="left:{t}%">{t} %</span>' for t in (0, 25, 50, 75, 100))
    return (
        "<p>The true success rate lies, with 95 % confidence, between"
        f" <b>{low:.1f} % and {high:.1f} %</b> (Wilson interval)</p>"
        f'<div class="scale" role="img" aria-label="{escape(str(rate))}">'
        f'<span class="band" style="left:{low:.2f}%;width:{high - low:.2f}%"></span>'
        f'<span class="rate" style="left:{value:.2f}%"></span></div>'
        f'<div class="ticks">{ticks}</div>'
    )


def _cells(run: RunResult, replays: Mapping[int, Replay]) -> str:
    cells: dict[float | None, list[str]] = {}
    for i, episode in enumerate(run.episodes):
        target = f"episode-{i}" if i in replays else f"row-{i}"
        delay = f", delay {episode.delay:g} s" if run.by_delay else ""
        text = f"Rollout {i + 1}, seed {episode.seed}{delay}: {WORDS[episode.ended_by]}"
        cells.setdefault(episode.delay, []).append(
            f'<li><a class="{episode.ended_by}" href="#{target}" title="{text}"'
            f' aria-label="{text}"></a></li>'
        )
    failures = sum(e.finished and not e.success for e in run.episodes)
    unfinished = sum(not e.finished for e in run.episodes)
    key = [f'<span><i class="success"></i>{run.rate.successes} succeeded</span>']
    if failures:
        key.append(f'<span><i class="failure"></i>{failures} failed</span>')
    if unfinished:
        key.append(f'<span><i class="unfinished"></i>{unfinished} not finished</span>')
    rows = []
    for charged, row in cells.items():
        label = f'<p class="delay">delay {charged:g} s</p>' if run.by_delay else ""
        rows.append(f'{label}<ol class="cells">{"".join(row)}</ol>')
    return f'<div class="rows">{"".join(rows)}</div><p class="key">{"".join(key)}</p>'


def _tiles(run: RunResult) -> str:
    latency = run.latency
    steps = run.mean_steps or 0.0
    tiles = [
        ("Mean length", f"{steps / run.control_fps:.1f} s", f"{steps:.1f} steps"),
        ("Time limit", f"{run.simulation_time:g} s", f"at {run.control_fps:g} Hz"),
    ]
    if latency.median is not None and latency.p95 is not None:
        tiles += [
            ("Inference, median", f"{latency.median:.1f} ms", f"{latency.count} calls"),
            ("Inference, p95", f"{latency.p95:.1f} ms", ""),
        ]
    steps_played = sum(episode.steps for episode in run.episodes)
    starved = sum(episode.starved for episode in run.episodes)
    if starved or run.delays or run.charge_inference_time:
        tiles.append(("Starved steps", f"{starved}", f"of {steps_played}"))
    jumps = jump_summary([jump for episode in run.episodes for jump in episode.jumps])
    if jumps["count"]:
        tiles.append(("Mean jump", f"{jumps['mean_mm']:.1f} mm", f"{jumps['count']} changes"))
    tiles.append(("Wall time", _duration(run.wall_s), ""))
    return "".join(
        f"<div><dt>{name}</dt><dd>{value}<small>{note}</small></dd></div>"
        for name, value, note in tiles
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(math.floor(seconds + 0.5), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _shown(run: RunResult, replays: Mapping[int, Replay]) -> str:
    if not replays:
        return ""
    cards = [episode_card(i, run.episodes[i], r, run.control_fps) for i, r in replays.items()]
    failures = sum(not run.episodes[i].success for i in replays)
    note = f"{len(cards)} of {len(run.episodes)}" + (", failures first" if failures else "")
    return (
        f'<section aria-labelledby="shown"><h2 id="shown">Rollouts in detail<small>{note}</small>'
        f"</h2>{''.join(cards)}"
        '<p class="note">Click a chart to go to that moment of the video. The ticks at the foot of'
        " a chart are the moments at which the policy was asked for new actions.</p></section>"
    )


def _table(run: RunResult, replays: Mapping[int, Replay]) -> str:
    filmed = any(episode.video is not None for episode in run.episodes)
    head = (
        '<table><thead><tr><th class="text">Rollout</th><th>Seed</th>'
        + ("<th>Delay</th>" if run.by_delay else "")
        + '<th class="text">Ended by</th><th>Steps</th><th>Time</th><th>Return</th>'
        "<th>Inference calls</th><th>Mean</th><th>Max</th><th>Starved</th><th>Mean jump</th>"
        '<th class="text">Recorded as</th>'
        + ('<th class="text">Film</th>' if filmed else "")
        + "</tr></thead><tbody>"
    )
    rows = []
    for i, episode in enumerate(run.episodes):
        latency, jump = episode.latency, jump_summary(episode.jumps)["mean_mm"]
        number = f'<a href="#episode-{i}">{i + 1}</a>' if i in replays else f"{i + 1}"
        recorded = "" if episode.path is None else escape(episode.path.name)
        cells = [
            f'<td class="text">{number}</td>',
            f"<td>{episode.seed}</td>",
            f"<td>{episode.delay:g} s</td>" if run.by_delay else "",
            f'<td class="text">{pill(episode.ended_by)}</td>',
            f"<td>{episode.steps}</td>",
            f"<td>{episode.steps / run.control_fps:.1f} s</td>",
            f"<td>{episode.total_reward:.2f}</td>",
            f"<td>{latency.count}</td>",
            f"<td>{_ms(latency.mean)}</td>",
            f"<td>{_ms(latency.max)}</td>",
            f"<td>{episode.starved}</td>",
            "<td>–</td>" if jump is None else f"<td>{jump:.1f} mm</td>",
            f'<td class="text soft">{recorded}</td>',
            f'<td class="text">{_film(run, episode)}</td>' if filmed else "",
        ]
        rows.append(f'<tr id="row-{i}">{"".join(cells)}</tr>')
    return head + "".join(rows) + "</tbody></table>"


def _film(run: RunResult, episode: EpisodeResult) -> str:
    if episode.video is None:
        return ""
    name = escape(episode.video.name)
    directory = episode.video.parent
    if directory.parent not in run.published:
        return name
    # The report does not need the films beside it, but leads to them.
    return f'<a href="{escape(directory.name)}/{name}">{name}</a>'


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} ms"


def _origin(run: RunResult) -> str:
    policy = {k: v for k, v in run.policy.items() if k != "contract"}
    setting = {
        "environment": run.env,
        "seeds": f"{run.seed} … {run.seed + run.num_iterations - 1}",
        "cameras": ", ".join(run.cameras) or "none",
        "image size": f"{run.image_size[1]} × {run.image_size[0]}",
        "player": run.player,
        "inference is charged": _charge(run),
        "started": run.started,
    }
    parts = [
        "<h3>Command</h3>",
        f"<pre><code>{escape(' '.join(run.command))}</code></pre>",
        "<h3>Environment</h3>",
        _definitions(setting),
        "<h3>Policy, as it describes itself</h3>",
        _definitions(flatten(policy)) if policy else "<p>It says nothing of itself.</p>",
    ]
    if run.contract is not None:
        parts += [
            "<h3>Contract</h3><details><summary>What the policy was trained on</summary>",
            _definitions(flatten(run.contract)),
            "</details>",
        ]
    return "".join([*parts, "<h3>Versions</h3>", _definitions(run.versions)])


def _charge(run: RunResult) -> str:
    if run.delays:
        return ", ".join(f"{delay:g} s" for delay in run.delays)
    return "the seconds that it took" if run.charge_inference_time else "nothing"


def _definitions(values: Mapping[str, Any]) -> str:
    items = "".join(
        f"<dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd>"
        for name, value in values.items()
    )
    return f"<dl>{items}</dl>"
