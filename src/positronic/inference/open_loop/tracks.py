"""Open-loop replay of a recorded episode: a policy's actions, recorded actions, their errors.

Open loop: what the policy answers changes nothing about what it sees next. The chunks are asked
for and played exactly as in a rollout, at the policy's frame rate and through ``ChunkPlayer``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from positronic import geom
from positronic.errors import DatasetError, EpisodeError, SessionError
from positronic.geom import Array
from positronic.policy import Action, ChunkPlayer, Policy

if TYPE_CHECKING:
    from positronic.dataset import Episode

COMMANDS = ("robot_commands.pose", "target_grip")
PRESENT = ("robot_state.ee_pose", "grip")
OBSERVED = ("robot_state.", "image.", "grip", "object_poses")

UNITS = {"x": "mm", "y": "mm", "z": "mm", "position": "mm", "rotation": "°", "grip": ""}
"""The dimensions of an error and their units; ``position`` is the distance, ``rotation`` the
angle of the rotation between the two, ``grip`` counts from 0 (closed) to 1 (open)."""


@dataclass(frozen=True)
class Track:
    """Targets over time: poses ``(T, 7)`` and grips ``(T,)`` with 1 = open."""

    pose: Array
    grip: Array

    def errors(self, other: "Track") -> dict[str, Array]:
        """Absolute differences ``(T,)`` in the dimensions and units of ``UNITS``."""
        offset = 1e3 * (self.pose[:, :3] - other.pose[:, :3])
        # Not from the dot product: arccos near 1 turns rounding into hundredths of a degree.
        between = geom.quat_mul(self.pose[:, 3:], geom.quat_conj(other.pose[:, 3:]))
        sine, cosine = np.linalg.norm(between[:, 1:], axis=1), np.abs(between[:, 0])
        return {
            "x": np.abs(offset[:, 0]),
            "y": np.abs(offset[:, 1]),
            "z": np.abs(offset[:, 2]),
            "position": np.linalg.norm(offset, axis=1),
            "rotation": np.degrees(2 * np.arctan2(sine, cosine)),
            "grip": np.abs(self.grip - other.grip),
        }


@dataclass(frozen=True)
class Comparison:
    """One episode: ``times`` ``(T,)`` in seconds from its start, and the tracks at them.

    ``present`` is where the robot was; ``hold`` is the baseline that a policy has to beat: stay
    where the robot was when the chunk was asked for. ``asked`` are the times of the inferences,
    ``latencies`` the wall-clock seconds that they took.
    """

    index: int
    name: str
    times: Array
    recorded: Track
    served: Track
    present: Track
    hold: Track
    asked: list[float]
    latencies: list[float]


def compare(episode: "Episode", index: int, policy: Policy, fps: float | None) -> Comparison:
    """Replay one episode's observations through a new session of ``policy``.

    ``fps`` overrides the frame rate that the policy was trained with. EpisodeError where the
    episode lacks what the policy reads or what it is compared with; SessionError where the policy
    answers with something other than end-effector poses. A grip that the recording says to count
    otherwise than the policy was trained with is turned.
    """
    from positronic.dataset.conventions import adapted

    name = str(episode.static.get("robomimic.demo", f"episode {index}"))
    needed = (*COMMANDS, *PRESENT)
    episode = adapted(episode, needed, None)
    _require(episode, name, needed, "to compare with")
    context = {"task": episode.static["task"]} if "task" in episode.static else {}
    session = policy.new_session(context)
    try:
        episode = adapted(episode, needed, (session.meta.get("contract") or {}).get("grip"))
        fps = frame_rate(session.meta, episode.static, fps)
        inputs = _inputs(session.meta, episode)
        _require(episode, name, inputs, "that the policy reads")
        grid = _grid(episode, (*inputs, *needed), fps)
        if not len(grid):
            raise EpisodeError(f"{name} has no step at which all its signals are known")
        recorded, present = (
            Track(
                np.stack([episode.signals[pose].time[t][0] for t in grid]).astype(np.float64),
                np.array([float(episode.signals[grip].time[t][0]) for t in grid]),
            )
            for pose, grip in (COMMANDS, PRESENT)
        )
        player = ChunkPlayer(session, fps)
        times = (grid - grid[0]) / 1e9
        actions: list[Action] = []
        asked: list[int] = []
        for step, ts in enumerate(grid):
            count = player.inferences
            actions.append(
                player.action(_Observation(episode, inputs, int(ts), context), times[step])
            )
            if player.inferences > count:
                asked.append(step)
    finally:
        session.close()
    held = np.repeat(asked, np.diff([*asked, len(grid)]))
    return Comparison(
        index,
        name,
        times,
        recorded,
        _track(actions),
        present,
        Track(present.pose[held], present.grip[held]),
        [float(times[step]) for step in asked],
        list(player.latencies),
    )


def frame_rate(
    meta: Mapping[str, Any], static: Mapping[str, Any], fps: float | None = None
) -> float:
    """Steps per second: as given, else the contract's, the policy's, the recording's."""
    contract = meta.get("contract") or {}
    found = fps or contract.get("fps") or meta.get("action_fps") or static.get("control_fps")
    if not found:
        raise DatasetError(
            "neither the policy nor the recording says its frame rate; give --fps=15 or the like"
        )
    return float(found)


class _Observation(Mapping[str, Any]):
    """What was recorded at one instant; decoded only when the policy is asked."""

    def __init__(
        self, episode: "Episode", inputs: tuple[str, ...], ts: int, context: Mapping[str, Any]
    ) -> None:
        self._episode, self._inputs, self._ts, self._context = episode, inputs, ts, context

    def __getitem__(self, key: str) -> Any:
        if key in self._inputs:
            return self._episode.signals[key].time[self._ts][0]
        return self._context[key]

    def __iter__(self) -> Iterator[str]:
        yield from self._inputs
        yield from (key for key in self._context if key not in self._inputs)

    def __len__(self) -> int:
        return len({*self._inputs, *self._context})


def _inputs(meta: Mapping[str, Any], episode: "Episode") -> tuple[str, ...]:
    contract = meta.get("contract") or {}
    if contract.get("inputs"):
        return tuple(key for key in contract["inputs"] if key != "task")
    return tuple(key for key in episode.signals if key.startswith(OBSERVED))


def _require(episode: "Episode", name: str, wanted: tuple[str, ...], why: str) -> None:
    lacking = [key for key in wanted if key not in episode.signals]
    if lacking:
        present = ", ".join(sorted(episode.signals))
        raise EpisodeError(f"{name} has no {', '.join(lacking)} {why}; it has: {present}")


def _grid(episode: "Episode", used: tuple[str, ...], fps: float) -> np.ndarray[Any, Any]:
    """Instants in ns at ``fps``, from where every signal has begun to the last command."""
    start = max(episode.signals[key].start_ts for key in used)
    end = max(episode.signals[key].last_ts for key in COMMANDS)
    steps = int((end - start) * fps / 1e9 + 1e-6) + 1 if end >= start else 0
    # From i / fps each time, so nothing drifts against the recorded timestamps. These are rounded
    # down from another origin, so the sample that is meant may stand one nanosecond later.
    return np.array([start + int(i * 1e9 / fps) + 1 for i in range(steps)], dtype=np.int64)


def _track(actions: list[Action]) -> Track:
    poses, grips = [], []
    for action in actions:
        command = action.get("robot_command") or {}
        if command.get("type") != "cartesian_pos" or "target_grip" not in action:
            raise SessionError(
                f"the policy answers with {command.get('type', 'no')!r} commands; open_loop "
                "compares end-effector targets ('cartesian_pos') with a target_grip"
            )
        poses.append(geom.pose_from_wire(command["pose"]))
        grips.append(float(action["target_grip"]))
    return Track(np.stack(poses), np.array(grips))
