"""Report card of one rollout: its video and the curves of its signals."""

import base64
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from positronic.inference.plots import Line, line_chart
from positronic.inference.replay import Curve, Replay
from positronic.inference.results import EpisodeResult

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
        "film": _film(replay),
        "charts": _charts(result, replay, control_fps),
    }


def _facts(result: EpisodeResult, control_fps: float) -> list[tuple[str, str]]:
    latency = result.latency
    facts = [
        ("Seed", str(result.seed)),
        ("Length", f"{result.steps / control_fps:.1f} s, {result.steps} steps"),
        ("Return", f"{result.total_reward:.2f}"),
    ]
    if latency.mean is not None and latency.max is not None:
        facts += [
            ("Inference calls", str(latency.count)),
            ("Mean, longest", f"{latency.mean:.1f} ms, {latency.max:.1f} ms"),
        ]
    return facts


def _film(replay: Replay) -> dict[str, Any] | None:
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
