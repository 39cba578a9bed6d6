"""``report.html``: the results of a whole run as one self-contained page."""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from positronic.inference.curve import delay_section
from positronic.inference.pages.rendering import render
from positronic.inference.plots import Line, line_chart
from positronic.inference.replay import Curve, Replay
from positronic.inference.results import EpisodeResult, RunResult, flatten, jump_summary


class Tile(NamedTuple):
    """One number of the summary: its name, value, what else is to be said, and what it means."""

    name: str
    value: str
    note: str
    title: str


# What a word of the page means, shown where the pointer rests on it.
MEANS = {
    "Outcome": "How the rollout ended; of a failure what went wrong, where the environment says it",
    "Return": "Sum of the environment's rewards",
    "Inferences": "How often the policy was asked for new actions",
    "Mean": "Mean time of an inference",
    "Longest": "Time of the longest inference",
    "Starved": "Control steps for which no action was there in time; the last one was held",
    "Jump": "Mean distance that the commanded position moves where one chunk of actions follows"
    " another",
}
AXES = "xyz"
POSE_SIZE = 7


def episode_card(
    index: int, result: EpisodeResult, replay: Replay, control_fps: float
) -> dict[str, Any]:
    """Describe rollout number ``index`` (from 0) of a run for the page: figures, film, charts."""
    return {
        "index": index,
        "result": result,
        "facts": _facts(result, control_fps),
        "film": _replayed(replay),
        "charts": _charts(result, replay, control_fps),
    }


def _facts(result: EpisodeResult, control_fps: float) -> list[tuple[str, str]]:
    latency = result.latency
    facts = [
        ("Seed", str(result.seed)),
        ("Duration", f"{result.steps / control_fps:.1f} s, {result.steps} steps"),
        ("Return", f"{result.total_reward:.2f}"),
    ]
    if latency.mean is not None and latency.max is not None:
        facts += [
            ("Inferences", str(latency.count)),
            ("Inference", f"{latency.mean:.1f} ms mean, {latency.max:.1f} ms longest"),
        ]
    return facts


def _replayed(replay: Replay) -> dict[str, Any] | None:
    if replay.video is None:
        return None
    width, height = replay.video_size
    return {
        "width": width,
        "height": height,
        "data": base64.b64encode(replay.video).decode("ascii"),
        "cameras": [name.removeprefix("image.") for name in replay.cameras],
    }


def _charts(result: EpisodeResult, replay: Replay, control_fps: float) -> list[Markup]:
    duration = replay.duration
    marks = [step / control_fps for step in result.inference_steps]
    curves = replay.curves
    charts: list[tuple[str, str, list[Line], tuple[float, float] | None]] = []
    grip = _pair(curves.get("grip"), curves.get("target_grip"), None)
    if grip:
        charts.append(("Gripper", "1 = open", grip, (-0.06, 1.06)))
    for axis in range(3):
        pose = _pair(curves.get("robot_state.ee_pose"), curves.get("robot_commands.pose"), axis)
        if pose:
            charts.append((f"End effector {AXES[axis]}", "m", pose, None))
    for axis in range(3):
        objects = _objects(curves.get("object_poses"), replay.object_names, axis)
        if objects:
            charts.append((f"Objects {AXES[axis]}", "m", objects, None))
    return [
        line_chart(title, unit, lines, duration=duration, marks=marks, limits=limits)
        for title, unit, lines, limits in charts
    ]


def _pair(measured: Curve | None, commanded: Curve | None, axis: int | None) -> list[Line]:
    """The measured curve and, dashed over it, the commanded one; each only where it is recorded."""
    lines = []
    if measured is not None:
        lines.append(Line("measured", measured.times, _column(measured, axis)))
    if commanded is not None:
        values = _column(commanded, axis)
        lines.append(Line("commanded", commanded.times, values, "commanded", True, held=True))
    return lines


def _objects(poses: Curve | None, names: object, axis: int) -> list[Line]:
    if poses is None or poses.values.ndim != 2:
        return []
    count = poses.values.shape[1] // POSE_SIZE
    given = list(names) if isinstance(names, list | tuple) else []
    lines = []
    for i in range(count):
        name = str(given[i]) if i < len(given) else f"object {i + 1}"
        label = name.replace("_", " ")
        lines.append(
            Line(label, poses.times, poses.values[:, i * POSE_SIZE + axis], _tone(name, i))
        )
    return lines


def _tone(name: str, index: int) -> str:
    """An object that is named after its colour is drawn in it."""
    for colour in ("red", "green", "blue"):
        if colour in name:
            return colour
    return ("third", "fourth", "measured", "commanded")[index % 4]


def _column(curve: Curve, axis: int | None) -> NDArray[np.float64]:
    return curve.values if axis is None else curve.values[:, axis]


def choose_shown(episodes: Sequence[EpisodeResult], videos: int) -> list[int]:
    """Choose which rollouts are shown in full: failures first, then successes, at most ``videos``.

    Of two or more, one is a success if there is any. Returns their indices in the order shown.
    """
    order = sorted(range(len(episodes)), key=lambda i: (episodes[i].success, i))
    shown = order[: max(0, videos)]
    if len(shown) > 1 and not episodes[shown[-1]].success:
        shown[-1:] = [i for i in order if episodes[i].success][:1] or shown[-1:]
    return shown


def render_report(run: RunResult, replays: Mapping[int, Replay]) -> str:
    """Return the page as HTML; ``replays`` holds the rollouts to show in full by their index."""
    described = {name: value for name, value in run.policy.items() if name != "contract"}
    return render(
        "report.html",
        run=run,
        title=f"{_headline(run)} · {run.task}",
        task=run.task,
        subtitle=_subtitle(run),
        cell_rows=_cells(run, replays),
        key=_key(run, replays),
        causes=_causes(run, replays),
        tiles=_tiles(run),
        delays=delay_section(run),
        cards=[episode_card(i, run.episodes[i], r, run.control_fps) for i, r in replays.items()],
        failures_shown=any(not run.episodes[i].success for i in replays),
        filmed=any(episode.video is not None for episode in run.episodes),
        table=[_row(run, i, i in replays) for i in range(len(run.episodes))],
        setting=_setting(run),
        policy={name: _value(value) for name, value in flatten(described).items()},
        means=MEANS,
        part_of=run.part_of,
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
            "target": _target(i, replays),
            "text": f"Rollout {i + 1}, seed {episode.seed}{delay}: {episode.outcome}",
        }
        rows.setdefault(episode.delay, []).append(cell)
    return rows


def _target(index: int, replays: Mapping[int, Replay]) -> str:
    """Where a rollout is on the page: shown in full, or else its row in the table."""
    return f"episode-{index}" if index in replays else f"row-{index}"


def _key(run: RunResult, replays: Mapping[int, Replay]) -> list[dict[str, Any]]:
    """What the colours of the squares mean, and how many there are of each."""
    groups = {
        ("success", "succeeded"): [e.success for e in run.episodes],
        ("failure", "failed"): [e.failed for e in run.episodes],
        ("unfinished", "not finished"): [not e.finished for e in run.episodes],
    }
    return [
        {"kind": kind, **_link(words, those, replays)}
        for (kind, words), those in groups.items()
        if any(those)
    ]


def _causes(run: RunResult, replays: Mapping[int, Replay]) -> list[dict[str, Any]]:
    """Why rollouts failed, most often first; empty where the environment does not say it."""
    return [
        _link(outcome, [e.failed and e.outcome == outcome for e in run.episodes], replays)
        for outcome in run.named_failures
    ]


def _link(words: str, those: Sequence[bool], replays: Mapping[int, Replay]) -> dict[str, str]:
    """How many of ``those`` rollouts there are, and where the first one is, if possible a film."""
    found = [i for i, one in enumerate(those) if one]
    first = next((i for i in found if i in replays), found[0])
    return {"text": f"{len(found)} {words}", "target": _target(first, replays)}


def _tiles(run: RunResult) -> list[Tile]:
    latency = run.latency
    steps = run.mean_steps or 0.0
    limit = f"{run.simulation_time * run.control_fps:g} steps at {run.control_fps:g} Hz"
    tiles = [
        Tile(
            "Mean duration",
            f"{steps / run.control_fps:.1f} s",
            f"{steps:.1f} steps",
            "Of the finished rollouts, in simulated time; a failure lasts up to the time limit",
        ),
        Tile("Time limit", f"{run.simulation_time:g} s", limit, "Simulated time for each rollout"),
    ]
    if latency.median is not None and latency.p95 is not None:
        tiles.append(
            Tile(
                "Inference time",
                f"{latency.median:.1f} ms",
                f"median; 95\u00a0% within {latency.p95:.1f}\u00a0ms",
                f"From asking the policy to having its actions; {latency.count} inferences",
            )
        )
    steps_played = sum(episode.steps for episode in run.episodes)
    starved = sum(episode.starved for episode in run.episodes)
    if starved or run.delays or run.charge_inference_time:
        tiles.append(
            Tile("Starved steps", f"{starved}", f"of {steps_played} steps", MEANS["Starved"])
        )
    jumps = jump_summary([jump for episode in run.episodes for jump in episode.jumps])
    if jumps["count"]:
        tiles.append(
            Tile(
                "Jump between chunks",
                f"{jumps['mean_mm']:.1f} mm",
                f"mean of {jumps['count']}",
                MEANS["Jump"],
            )
        )
    wall = "Real time that all rollouts took, without start-up"
    tiles.append(Tile("Run took", _duration(run.wall_s), f"{len(run.episodes)} rollouts", wall))
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


def _value(value: Any) -> str:
    """A value of a policy's description, as JSON unless it is a text."""
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


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
