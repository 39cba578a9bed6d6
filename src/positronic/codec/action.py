"""Action codecs: absolute targets of the end effector, or of the joints, and a grip."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, override

import numpy as np
from numpy.typing import NDArray

from positronic.codec.base import Codec, Command, Features, Row
from positronic.codec.fields import MOST_NUMBERS, key_of, name_of, size_of
from positronic.codec.rotations import (
    ROTATION,
    SIZES,
    WORDS,
    WXYZ,
    encode_poses,
    poses_to_wire,
    reference_for,
    rotation_of,
)
from positronic.codec.vectors import (
    LATER,
    QUAT_REFERENCE,
    Quaternion,
    read,
    reference_of,
    require_rotations,
)

GRIP = {"open": 1.0, "closed": 0.0}
# Names of a grip's signal, after any prefix of an arm: their convention is known.
GRIPS = ("grip", "target_grip")


@dataclass(frozen=True)
class AbsolutePose(Codec):
    """Codec of actions: target pose ``[x y z qw qx qy qz]`` in metres and grip, float32 ``(8,)``.

    When decoded, the quaternion is normalised and the pose is sent as ``cartesian_pos``: position
    and row-major rotation matrix, float64 ``(12,)``. Grip is 1 when open, 0 when closed.
    `positronic.codec.vectors` aligns the quaternions with ``quat_reference``; ``rotation`` writes
    them in another way (`positronic.codec.rotations`).
    """

    kind: ClassVar[str] = "absolute_pose"
    key: str = "action"
    pose: str = "robot_commands.pose"
    grip: str = "target_grip"
    quat_reference: Quaternion | None = field(default=QUAT_REFERENCE, metadata=LATER)
    rotation: str = field(default=WXYZ, metadata=ROTATION)

    def __post_init__(self) -> None:
        key_of(self.key, "key")
        name_of(self.pose, "pose")
        name_of(self.grip, "grip")
        rotation, reference = rotation_of(self.rotation), reference_of(self.quat_reference)
        object.__setattr__(self, "quat_reference", reference_for(rotation, reference))

    @property
    @override
    def action_inputs(self) -> tuple[str, ...]:
        return (self.pose, self.grip)

    @property
    @override
    def features(self) -> Features:
        return {self.key: {"dtype": "float32", "shape": (self._size,), "names": ["actions"]}}

    @property
    @override
    def meta(self) -> dict[str, Any]:
        return {
            "pose": {"frame": "robot", "position": "metres", "rotation": WORDS[self.rotation]},
            "grip": dict(GRIP),
        }

    @property
    def _size(self) -> int:
        return 4 + SIZES[self.rotation]

    @override
    def encode_action(
        self, obs: Row, before: NDArray[np.float32] | None = None, previous: Row | None = None
    ) -> NDArray[np.float32]:
        return self._join(obs, before, rows=False)

    @override
    def encode_action_rows(self, columns: Row) -> NDArray[np.float32]:
        return self._join(columns, None, rows=True)

    def _join(
        self, source: Row, before: NDArray[np.float32] | None, *, rows: bool
    ) -> NDArray[np.float32]:
        pose, grip = read(source, self.pose, 7, rows=rows), read(source, self.grip, 1, rows=rows)
        require_rotations(self.pose, pose)
        last = None if before is None else before[:-1]
        pose = encode_poses(pose, self.rotation, self.quat_reference, last)
        return np.concatenate([pose, grip], axis=-1).astype(np.float32)

    @override
    def decode(self, action: Any, obs: Row | None = None, before: Command | None = None) -> Command:
        vector = read({"action": action}, "action", self._size, rows=False)
        return self._commands(vector[np.newaxis])[0]

    @override
    def decode_rows(
        self, actions: Any, obs: Row | None = None, before: Command | None = None
    ) -> list[Command]:
        return self._commands(read({"action": actions}, "action", self._size, rows=True))

    def _commands(self, vectors: NDArray[np.float64]) -> list[Command]:
        return pose_commands(poses_to_wire(vectors[:, :-1], self.rotation), vectors[:, -1])


def pose_commands(poses: NDArray[np.float64], grips: NDArray[np.float64]) -> list[Command]:
    """Return the commands of wire poses ``(T, 12)`` and grips ``(T,)``."""
    return [
        {"robot_command": {"type": "cartesian_pos", "pose": pose}, "target_grip": grip}
        for pose, grip in zip(poses, grips.tolist(), strict=True)
    ]


@dataclass(frozen=True)
class JointTargets(Codec):
    """Codec of actions: target positions of the joints, then a grip; float32 ``(n_joints + 1,)``.

    The positions stay in the unit of the recordings, and are sent as ``joint_pos``: float64
    ``(n_joints,)``. With ``grip=None`` there is no grip, as on arms whose gripper is a joint.
    ``n_joints=None`` is filled in by `sized`.
    """

    kind: ClassVar[str] = "joint_targets"
    key: str = "action"
    joints: str = "robot_commands.joints"
    n_joints: int | None = None
    grip: str | None = "target_grip"

    def __post_init__(self) -> None:
        key_of(self.key, "key")
        name_of(self.joints, "joints")
        size_of(self.n_joints, "n_joints", MOST_NUMBERS - 1)
        if self.grip is not None:
            name_of(self.grip, "grip")

    @property
    @override
    def action_inputs(self) -> tuple[str, ...]:
        return (self.joints,) if self.grip is None else (self.joints, self.grip)

    @property
    @override
    def unsized(self) -> tuple[str, ...]:
        return (self.joints,) if self.n_joints is None else ()

    @override
    def sized(self, sizes: Mapping[str, int]) -> "JointTargets":
        return self.replace(n_joints=self.n_joints or sizes.get(self.joints))

    @property
    @override
    def features(self) -> Features:
        count = self.n_joints or 0
        names = [f"joint{i + 1}" for i in range(count)] + ["grip"] * (self.grip is not None)
        shape = (0 if self.unsized else len(names),)
        return {self.key: {"dtype": "float32", "shape": shape, "names": names}}

    @property
    @override
    def meta(self) -> dict[str, Any]:
        pose = {"command": "joint_pos", "joints": self.n_joints, "unit": "as recorded"}
        if self.grip is None or self.grip.rpartition(".")[2] not in GRIPS:
            return {"pose": pose}
        return {"pose": pose, "grip": dict(GRIP)}

    @override
    def encode_action(
        self, obs: Row, before: NDArray[np.float32] | None = None, previous: Row | None = None
    ) -> NDArray[np.float32]:
        return self._join(obs, rows=False)

    @override
    def encode_action_rows(self, columns: Row) -> NDArray[np.float32]:
        return self._join(columns, rows=True)

    def _join(self, source: Row, *, rows: bool) -> NDArray[np.float32]:
        parts = [read(source, self.joints, self.n_joints, rows=rows)]
        if self.grip is not None:
            parts.append(read(source, self.grip, 1, rows=rows))
        return np.concatenate(parts, axis=-1).astype(np.float32)

    @override
    def decode(self, action: Any, obs: Row | None = None, before: Command | None = None) -> Command:
        return self._command(read({"action": action}, "action", self._size, rows=False))

    @override
    def decode_rows(
        self, actions: Any, obs: Row | None = None, before: Command | None = None
    ) -> list[Command]:
        rows = read({"action": actions}, "action", self._size, rows=True)
        return [self._command(row) for row in rows]

    @property
    def _size(self) -> int | None:
        return None if self.n_joints is None else self.n_joints + (self.grip is not None)

    def _command(self, vector: NDArray[np.float64]) -> Command:
        command: Command = {
            "robot_command": {"type": "joint_pos", "positions": vector[: self.n_joints].copy()}
        }
        return command if self.grip is None else {**command, "target_grip": float(vector[-1])}
