"""Action codec: an absolute end-effector pose and a grip."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, override

import numpy as np
from numpy.typing import NDArray

from positronic.codec.base import Codec, Features, Row
from positronic.codec.fields import key_of, name_of
from positronic.codec.vectors import (
    LATER,
    QUAT_REFERENCE,
    Quaternion,
    aligned,
    read,
    reference_of,
    require_rotations,
)
from positronic.errors import CodecError


@dataclass(frozen=True)
class AbsolutePose(Codec):
    """Codec of actions: target pose ``[x y z qw qx qy qz]`` in metres and grip, float32 ``(8,)``.

    When decoded, the quaternion is normalised and the pose is sent as ``cartesian_pos``: position
    and row-major rotation matrix, float64 ``(12,)``. Grip is 1 when open, 0 when closed.
    `positronic.codec.vectors` aligns the quaternions with ``quat_reference``.
    """

    kind: ClassVar[str] = "absolute_pose"
    key: str = "action"
    pose: str = "robot_commands.pose"
    grip: str = "target_grip"
    quat_reference: Quaternion | None = field(default=QUAT_REFERENCE, metadata=LATER)

    def __post_init__(self) -> None:
        key_of(self.key, "key")
        name_of(self.pose, "pose")
        name_of(self.grip, "grip")
        object.__setattr__(self, "quat_reference", reference_of(self.quat_reference))

    @property
    @override
    def action_inputs(self) -> tuple[str, ...]:
        return (self.pose, self.grip)

    @property
    @override
    def features(self) -> Features:
        return {self.key: {"dtype": "float32", "shape": (8,), "names": ["actions"]}}

    @property
    @override
    def meta(self) -> dict[str, Any]:
        return {
            "pose": {"frame": "robot", "position": "metres", "rotation": "quaternion wxyz"},
            "grip": {"open": 1.0, "closed": 0.0},
        }

    @override
    def encode_action(
        self, obs: Row, before: NDArray[np.float32] | None = None
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
        pose = aligned(pose, self.quat_reference, None if before is None else before[:7])
        return np.concatenate([pose, grip], axis=-1).astype(np.float32)

    @override
    def decode(self, action: Any) -> dict[str, Any]:
        vector = read({"action": action}, "action", 8, rows=False)
        return self._commands(vector[np.newaxis])[0]

    @override
    def decode_rows(self, actions: Any) -> list[dict[str, Any]]:
        return self._commands(read({"action": actions}, "action", 8, rows=True))

    def _commands(self, vectors: NDArray[np.float64]) -> list[dict[str, Any]]:
        from positronic.geom import pose_to_wire  # late: SciPy takes half a second to import

        try:
            poses = pose_to_wire(vectors[:, :7])
        except ValueError as error:
            raise CodecError(f"the action holds no rotation: {error}") from error
        return [
            {"robot_command": {"type": "cartesian_pos", "pose": pose}, "target_grip": grip}
            for pose, grip in zip(poses, vectors[:, 7].tolist(), strict=True)
        ]
