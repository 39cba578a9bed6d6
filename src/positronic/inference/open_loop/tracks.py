"""Open-loop replay of a recorded episode: a policy's actions, recorded actions, their errors.

Open loop: the policy's actions do not affect its next observations. Chunks are requested and played
as in a rollout, at the policy's frame rate, by ``ChunkPlayer``.
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
"""Components of an error and their units; ``position`` is the distance, ``rotation`` the angle
between the two orientations, ``grip`` ranges from 0 (closed) to 1 (open)."""


@dataclass(frozen=True)
class Track:
    """Targets over time: poses ``(T, 7)`` and grips ``(T,)`` with 1 = open."""

    pose: Array
    grip: Array

    def errors(self, other: "Track") -> dict[str, Array]:
        """Absolute differences ``(T,)`` by the components and units of ``UNITS``."""
        offset = 1e3 * (self.pose[:, :3] - other.pose[:, :3])
        # Not by arccos of the dot product, whose rounding errors near 1 are hundredths of a degree.
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

    ``present`` is the robot's pose; ``hold`` is the baseline that a policy has to beat: hold the
    pose at which the chunk was requested. ``asked`` are the times of the inferences, ``latencies``
    their wall-clock seconds.
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

    ``fps`` overrides the frame rate that the policy was trained with. A grip recorded in another
    convention than the policy's is converted. EpisodeError if the episode lacks signals of the
    policy's inputs or recorded actions; SessionError if the policy returns other commands than
    end-effector poses.
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
            raise EpisodeError(f"{name} has no step at which all its signals have a value")
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
            "neither the policy nor the recording states its frame rate; give it, such as --fps=15"
        )
    return float(found)


class _Observation(Mapping[str, Any]):
    """The recorded observation at one time; decoded only when the policy infers."""

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
    """Times in ns at ``fps``, from when all signals have values to the last command."""
    start = max(episode.signals[key].start_ts for key in used)
    end = max(episode.signals[key].last_ts for key in COMMANDS)
    steps = int((end - start) * fps / 1e9 + 1e-6) + 1 if end >= start else 0
    # Computed from i / fps each time, to avoid drift against the recorded timestamps. Those are
    # rounded down from another origin, so the matching sample may be one nanosecond later.
    return np.array([start + int(i * 1e9 / fps) + 1 for i in range(steps)], dtype=np.int64)


def _track(actions: list[Action]) -> Track:
    poses, grips = [], []
    for action in actions:
        command = action.get("robot_command") or {}
        if command.get("type") != "cartesian_pos" or "target_grip" not in action:
            raise SessionError(
                f"the policy returns {command.get('type', 'no')!r} commands; open_loop "
                "compares end-effector targets ('cartesian_pos') with a target_grip"
            )
        poses.append(geom.pose_from_wire(command["pose"]))
        grips.append(float(action["target_grip"]))
    return Track(np.stack(poses), np.array(grips))
