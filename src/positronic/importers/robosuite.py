"""Conversion of robosuite's conventions: quaternions, finger positions, controller actions.

robosuite writes quaternions scalar last, finger positions in metres and actions as increments for
its operational-space controller. The formulas follow the public source of robosuite 1.2.0
(``controllers/osc.py``, ``controllers/base_controller.py``, ``utils/control_utils.py``,
``models/grippers/panda_gripper.py``); the configuration is the same in versions 1.0 to 1.4.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from xml.etree import ElementTree

import numpy as np
from pydantic import Field
from scipy.spatial.transform import Rotation

from foundation.documents import Document, Reader
from foundation.text import printable
from positronic.geom import Array, normalize_quat, quat_mul

# Range of each of the Panda gripper's two sliding fingers, for files without a model.
FINGER_RANGE_M = 0.04

# Objects whose poses (position, then quaternion) come first in the `object` observation.
OBJECTS: dict[str, tuple[str, ...]] = {"Lift": ("cube",), "Stack": ("cubeA", "cubeB")}

TASKS: dict[str, str] = {
    "Lift": "Lift the cube.",
    "Stack": "Stack the red cube on the green cube.",
    "PickPlaceCan": "Put the can into its bin.",
    "NutAssemblySquare": "Put the square nut on the square peg.",
    "ToolHang": "Assemble the frame and hang the tool on it.",
    "Door": "Open the door.",
}


class NotAbsolute(ValueError):
    """The actions cannot be converted to absolute targets; the message gives the reason."""


def wxyz(xyzw: Any) -> Array:
    """Convert quaternions ``(T, 4)`` from scalar last to scalar first, of unit length.

    Signs stay as recorded: codecs choose them by one rule for all recordings.
    """
    return np.roll(normalize_quat(xyzw), 1, axis=-1)


def finger_limits(model_xml: str | None) -> tuple[float, float]:
    """Width in metres between closed and open fingers, from the ranges of their two joints.

    The widths are differences of joint positions, so those of closed fingers need not be 0:
    Sawyer's are -0.023 and 0.0417.

    Args:
        model_xml: The recording's model; the Panda's range is used if it is None.

    Raises:
        ValueError: the model does not have two sliding finger joints with finite ranges.
    """
    if not model_xml:
        return 0.0, 2 * FINGER_RANGE_M
    ranges = [
        [float(edge) for edge in joint.get("range", "").split()]
        for joint in ElementTree.fromstring(model_xml).iter("joint")
        if "finger_joint" in joint.get("name", "") and joint.get("type") == "slide"
    ]
    if len(ranges) != 2 or any(len(edges) != 2 for edges in ranges):
        raise ValueError(
            "its model does not have two sliding finger joints with a range, so the width of the "
            "open gripper is unknown"
        )
    (low, high), (other_low, other_high) = ranges
    if not np.isfinite(ranges).all() or high - other_low <= low - other_high:
        raise ValueError("the ranges of the finger joints in its model are not finite, or empty")
    return low - other_high, high - other_low


def grip_from_fingers(qpos: Any, limits: tuple[float, float]) -> Array:
    """Finger positions ``(T, 2)`` in metres, of opposite sign, to ``(T,)``: 1 open, 0 closed.

    ``limits`` are the widths of closed and open fingers, as `finger_limits` gives them.
    """
    fingers, (closed, opened) = np.asarray(qpos, dtype=np.float64), limits
    return np.clip((fingers[:, 0] - fingers[:, 1] - closed) / (opened - closed), 0.0, 1.0)


def grip_from_action(action: Any) -> Array:
    """Gripper actions to target grip: -1 opens (1), +1 closes (0), 0 keeps the previous target.

    robosuite uses only the sign of the action. Before the first non-zero action the target is 1
    (open), as the gripper starts open.
    """
    target, grip = np.asarray(action, dtype=np.float64), 1.0
    out = np.empty(len(target))
    for index, sign in enumerate(np.sign(target)):
        grip = grip if sign == 0 else float(sign < 0)
        out[index] = grip
    return out


_Number = Annotated[float, Field(ge=-1e6, le=1e6)]
_Six = Annotated[list[_Number], Field(min_length=6, max_length=6)]
_Three = Annotated[list[_Number], Field(min_length=3, max_length=3)]


class _Limits(Document):
    """The numbers of ``controller_configs``."""

    input_min: _Number | _Six
    input_max: _Number | _Six
    output_min: _Number | _Six
    output_max: _Number | _Six
    position_limits: Annotated[list[_Three], Field(min_length=2, max_length=2)] | None = None


@dataclass(frozen=True)
class OscPose:
    """Converts actions of an ``OSC_POSE`` controller, their first six numbers, to targets.

    Clipped to ``[input_min, input_max]`` and mapped linearly to ``[output_min, output_max]``, they
    are an increment in the world frame: three of position in metres, three of rotation as a
    rotation vector in radians. robosuite adds it to the *current* pose of the end effector, not to
    the last target::

        target position = position + d        target rotation = exp(w) · rotation

    As ``exp(w)`` multiplies from the left, the formula holds for any frame fixed to the hand, so
    also for the one that ``eef_quat`` reports (the controller's own is turned by 90° about the
    approach axis). An increment of exactly zero rotation leaves the previous target rotation.
    """

    input_min: Array
    input_max: Array
    output_min: Array
    output_max: Array
    position_limits: Array | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "OscPose":
        """Read ``controller_configs`` of robosuite 1.0 to 1.4; NotAbsolute for anything else."""
        if config.get("type") != "OSC_POSE":
            raise NotAbsolute(
                f"its controller is {printable(config.get('type'))!r}, not 'OSC_POSE'"
            )
        if not config.get("control_delta", True):
            raise NotAbsolute("control_delta is false: its actions are in the controller's frame")
        if config.get("impedance_mode", "fixed") != "fixed":
            raise NotAbsolute(
                f"impedance_mode is {printable(config['impedance_mode'])!r}, not 'fixed'"
            )
        if config.get("orientation_limits") is not None:
            raise NotAbsolute("orientation_limits are set")
        limits = Reader(NotAbsolute).validate(
            config, _Limits, "its controller_configs are incomplete"
        )
        edges = {
            key: np.broadcast_to(np.asarray(getattr(limits, key), dtype=np.float64), (6,))
            for key in ("input_min", "input_max", "output_min", "output_max")
        }
        if np.any(edges["input_min"] == edges["input_max"]):
            raise NotAbsolute("input_min equals input_max")
        position = limits.position_limits
        return cls(**edges, position_limits=None if position is None else np.asarray(position))

    def increments(self, actions: Any) -> Array:
        """Scale actions ``(T, >=6)`` to metres and radians, ``(T, 6)``."""
        scale = np.abs(self.output_max - self.output_min) / np.abs(self.input_max - self.input_min)
        clipped = np.clip(np.asarray(actions)[:, :6], self.input_min, self.input_max)
        middle_in = (self.input_max + self.input_min) / 2
        middle_out = (self.output_max + self.output_min) / 2
        return np.asarray((clipped - middle_in) * scale + middle_out, dtype=np.float64)

    def targets(self, poses: Any, actions: Any) -> Array:
        """Absolute target poses ``(T, 7)`` of actions taken at poses ``(T, 7)``."""
        poses = np.asarray(poses, dtype=np.float64)
        delta = self.increments(actions)
        position = poses[:, :3] + delta[:, :3]
        if self.position_limits is not None:
            position = np.clip(position, self.position_limits[0], self.position_limits[1])
        turns = Rotation.from_rotvec(delta[:, 3:]).as_quat(scalar_first=True)
        quats = quat_mul(turns, poses[:, 3:])
        held = poses[0, 3:]
        for index, quat in enumerate(quats):
            held = quat if delta[index, 3:].any() else held
            quats[index] = held
        return np.concatenate([position, quats], axis=1)
