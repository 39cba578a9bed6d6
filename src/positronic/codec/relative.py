"""Action codecs of the end effector's motion, relative to the robot or to the target before.

A dataset stores one row per time step, and a policy's chunk is made of the rows from any time step
on. So a row may only hold what means the same in every chunk that it is part of: targets relative
to the observation at the *start* of a chunk cannot be stored. Stored are

- the *lead*: the target, relative to the pose observed at the same row;
- the *step*: the target, relative to the target of the row before.

`RelativePose` has both, and decodes every chunk exactly: its first target from the observed pose by
the lead, each later one from the target before by the step. `DeltaPose` has only the step. Its
first target starts from the command in force, if it is known, as it is where one action is decoded
at a time; otherwise from the observed pose, so a chunk is off by the distance at which the robot
follows its commands.

A motion is a position in metres and a rotation vector in radians, of at most pi. In the frame
``tool`` both are along the axes of the gripper that moves, in ``base`` along those of the robot's
base.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, override

import numpy as np
from numpy.typing import NDArray

from positronic.codec.action import GRIP, pose_commands
from positronic.codec.base import Codec, Command, Features, Row
from positronic.codec.fields import key_of, name_of, shown
from positronic.codec.vectors import read, require_rotations
from positronic.errors import CodecError
from positronic.geom import (
    Array,
    align_quat,
    normalize_quat,
    pose_from_wire,
    pose_to_wire,
    quat_conj,
    quat_mul,
    quat_to_rotvec,
    rotvec_to_quat,
)

FRAMES = ("tool", "base")
_AXES = ("x", "y", "z", "rx", "ry", "rz")


@dataclass(frozen=True)
class _Motion(Codec):
    key: str = "action"
    pose: str = "robot_commands.pose"
    grip: str = "target_grip"
    state: str = "robot_state.ee_pose"
    frame: str = "tool"

    motions: ClassVar[tuple[str, ...]]
    relative_to: ClassVar[str]

    def __post_init__(self) -> None:
        key_of(self.key, "key")
        for name in ("pose", "grip", "state"):
            name_of(getattr(self, name), name)
        if not isinstance(self.frame, str) or self.frame not in FRAMES:
            raise CodecError(f"frame is {shown(self.frame)}; give one of {', '.join(FRAMES)}")

    @property
    @override
    def inputs(self) -> tuple[str, ...]:
        return (self.state,)

    @property
    @override
    def action_inputs(self) -> tuple[str, ...]:
        return (self.pose, self.grip)

    @property
    @override
    def features(self) -> Features:
        names = [f"{motion}.{axis}" for motion in self.motions for axis in _AXES]
        names.append("grip")
        return {self.key: {"dtype": "float32", "shape": (len(names),), "names": names}}

    @property
    @override
    def meta(self) -> dict[str, Any]:
        pose = {
            "position": "metres",
            "rotation": "rotation vector in radians",
            "relative_to": self.relative_to,
            "axes": self.frame,
        }
        return {"pose": pose, "grip": dict(GRIP)}

    @override
    def encode(self, obs: Row, before: Row | None = None) -> dict[str, NDArray[Any]]:
        self._poses(obs, self.state, rows=False)  # refused before anything is predicted from it
        return {}

    @override
    def encode_action(
        self, obs: Row, before: NDArray[np.float32] | None = None, previous: Row | None = None
    ) -> NDArray[np.float32]:
        if before is not None and previous is None:
            raise CodecError(f"codec '{self.name}' needs the raw signals of the row before")
        row = {name: np.asarray(obs[name])[np.newaxis] for name in self._recorded(obs)}
        last = None if previous is None else self._poses(previous, self.pose, rows=False)
        (encoded,) = self._encoded(row, last)
        return np.asarray(encoded)

    @override
    def encode_action_rows(self, columns: Row) -> NDArray[np.float32]:
        return self._encoded(columns, None)

    def _recorded(self, row: Row) -> tuple[str, ...]:
        return tuple(name for name in (self.state, self.pose, self.grip) if name in row)

    def _encoded(self, columns: Row, last: Array | None) -> NDArray[np.float32]:
        targets = self._poses(columns, self.pose, rows=True)
        seen = self._poses(columns, self.state, rows=True)
        grip = read(columns, self.grip, 1, rows=True)
        lead = difference(seen, targets, self.frame)
        # The first row of an episode has no target before it.
        first = seen[:1] if last is None else last[np.newaxis]
        step = difference(np.concatenate([first, targets[:-1]]), targets, self.frame)
        motions = [{"lead": lead, "step": step}[name] for name in self.motions]
        return np.concatenate([*motions, grip], axis=-1).astype(np.float32)

    @override
    def decode(self, action: Any, obs: Row | None = None, before: Command | None = None) -> Command:
        vector = read({"action": action}, "action", self._size, rows=False)
        return self._decoded(vector[np.newaxis], obs, before)[0]

    @override
    def decode_rows(
        self, actions: Any, obs: Row | None = None, before: Command | None = None
    ) -> list[Command]:
        return self._decoded(
            read({"action": actions}, "action", self._size, rows=True), obs, before
        )

    @property
    def _size(self) -> int:
        return 6 * len(self.motions) + 1

    def _decoded(self, rows: Array, obs: Row | None, before: Command | None) -> list[Command]:
        if obs is None:
            raise CodecError(
                f"actions of codec '{self.name}' are relative to {self.relative_to}: decode them"
                " with the observation that they were predicted from"
            )
        start = self._start(self._poses(obs, self.state, rows=False), before)
        motions = np.concatenate([rows[:1, :6], rows[1:, -7:-1]])
        poses = pose_to_wire(follow(start, motions, self.frame))
        return pose_commands(poses, rows[:, -1])

    def _start(self, seen: Array, before: Command | None) -> Array:
        return seen

    def _poses(self, source: Row, name: str, *, rows: bool) -> Array:
        poses = read(source, name, 7, rows=rows)
        require_rotations(name, poses)
        return poses


@dataclass(frozen=True)
class RelativePose(_Motion):
    """Codec of actions: lead and step of the target, then the grip; float32 ``(13,)``.

    Any chunk of recorded rows decodes to the recorded targets, from the pose observed at its first
    row. Of a single action, and of the first of a chunk, only the lead counts.
    """

    kind: ClassVar[str] = "relative_pose"
    motions: ClassVar[tuple[str, ...]] = ("lead", "step")
    relative_to: ClassVar[str] = "the observed pose, and the target before"


@dataclass(frozen=True)
class DeltaPose(_Motion):
    """Codec of actions: step of the target, then the grip; float32 ``(7,)``.

    The first row of an episode is relative to the pose observed at it. A chunk decodes to the
    recorded targets if the command in force is known; without, its first step starts from the
    observed pose, and all targets are off by how far the robot was behind its command.
    """

    kind: ClassVar[str] = "delta_pose"
    motions: ClassVar[tuple[str, ...]] = ("step",)
    relative_to: ClassVar[str] = "the target before"

    @override
    def _start(self, seen: Array, before: Command | None) -> Array:
        command = {} if before is None else before.get("robot_command", {})
        return seen if "pose" not in command else pose_from_wire(command["pose"])


def difference(start: Array, end: Array, frame: str) -> Array:
    """Motions ``(T, 6)`` from poses ``start`` to poses ``end``, both ``(T, 7)``."""
    a, b = normalize_quat(start[:, 3:]), normalize_quat(end[:, 3:])
    moved = end[:, :3] - start[:, :3]
    if frame == "tool":
        moved, turn = _turned(quat_conj(a), moved), quat_mul(quat_conj(a), b)
    else:
        turn = quat_mul(b, quat_conj(a))
    # The shortest way; of two that are equal, always the same one.
    return np.concatenate([moved, quat_to_rotvec(align_quat(turn, (1.0, 0.0, 0.0, 0.0)))], axis=-1)


def follow(start: Array, motions: Array, frame: str) -> Array:
    """Poses ``(T, 7)`` that are reached from the pose ``start`` by one motion after the other."""
    steps = rotvec_to_quat(motions[:, 3:])
    position, quat = start[:3], normalize_quat(start[3:])
    found: list[Array] = []
    for moved, turn in zip(motions[:, :3], steps, strict=True):
        if frame == "tool":
            position, quat = position + _turned(quat, moved), quat_mul(quat, turn)
        else:
            position, quat = position + moved, quat_mul(turn, quat)
        quat = normalize_quat(quat)
        found.append(np.concatenate([position, quat]))
    return np.stack(found)


def _turned(quat: Array, vector: Array) -> Array:
    """Vectors ``(..., 3)`` turned by unit quaternions ``(..., 4)``."""
    spread = np.insert(vector, 0, 0.0, axis=-1)
    return quat_mul(quat_mul(quat, spread), quat_conj(quat))[..., 1:]
