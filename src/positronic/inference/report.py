"""``report.html``: the results of a whole run as one self-contained page."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from positronic.inference.curve import delay_section
from positronic.inference.pages.rendering import WORDS, render
from positronic.inference.panels import episode_card
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
    return render(
        "report.html",
        run=run,
        title=f"{_headline(run)} · {run.task}",
        task=run.task,
        subtitle=_subtitle(run),
        cell_rows=_cells(run, replays),
        key=_key(run),
        tiles=_tiles(run),
        delays=delay_section(run),
        cards=[episode_card(i, run.episodes[i], r, run.control_fps) for i, r in replays.items()],
        failures_shown=any(not run.episodes[i].success for i in replays),
        filmed=any(episode.video is not None for episode in run.episodes),
        table=[_row(run, i, i in replays) for i in range(len(run.episodes))],
        setting=_setting(run),
        policy=flatten({k: v for k, v in run.policy.items() if k != "contract"}),
    )


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


def _cells(
    run: RunResult, replays: Mapping[int, Replay]
) -> dict[float | None, list[dict[str, str]]]:
    """A coloured square for each rollout, in a row for each delay."""
    rows: dict[float | None, list[dict[str, str]]] = {}
    for i, episode in enumerate(run.episodes):
        delay = f", delay {episode.delay:g} s" if run.by_delay else ""
        cell = {
            "ended_by": episode.ended_by,
            "target": f"episode-{i}" if i in replays else f"row-{i}",
            "text": f"Rollout {i + 1}, seed {episode.seed}{delay}: {WORDS[episode.ended_by]}",
        }
        rows.setdefault(episode.delay, []).append(cell)
    return rows


def _key(run: RunResult) -> list[tuple[str, int, str]]:
    """What the colours of the squares mean, and how many there are of each."""
    failures = sum(e.finished and not e.success for e in run.episodes)
    unfinished = sum(not e.finished for e in run.episodes)
    key = [("success", run.rate.successes, "succeeded")]
    if failures:
        key.append(("failure", failures, "failed"))
    if unfinished:
        key.append(("unfinished", unfinished, "not finished"))
    return key


def _tiles(run: RunResult) -> list[tuple[str, str, str]]:
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
    return tiles


def _duration(seconds: float) -> str:
    minutes, rest = divmod(math.floor(seconds + 0.5), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _row(run: RunResult, index: int, shown: bool) -> dict[str, Any]:
    episode = run.episodes[index]
    return {
        "episode": episode,
        "shown": shown,
        "jump": jump_summary(episode.jumps)["mean_mm"],
        "film": _film(run, episode),
    }


def _film(run: RunResult, episode: EpisodeResult) -> str | None:
    """Where the film is, relative to the report; None where it is not beside it."""
    if episode.video is None or episode.video.parent.parent not in run.published:
        return None
    return f"{episode.video.parent.name}/{episode.video.name}"


def _setting(run: RunResult) -> dict[str, str]:
    return {
        "environment": run.env,
        "seeds": f"{run.seed} … {run.seed + run.num_iterations - 1}",
        "cameras": ", ".join(run.cameras) or "none",
        "image size": f"{run.image_size[1]} × {run.image_size[0]}",
        "player": run.player,
        "inference is charged": _charge(run),
        "started": run.started,
    }


def _charge(run: RunResult) -> str:
    if run.delays:
        return ", ".join(f"{delay:g} s" for delay in run.delays)
    return "the seconds that it took" if run.charge_inference_time else "nothing"
