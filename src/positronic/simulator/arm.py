"""Arm in a running MuJoCo simulation: reads its state, sets its targets."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from positronic.errors import SimulationError
from positronic.geom import align_quat, matrix_to_quat, pose_from_wire
from positronic.simulator import robot
from positronic.simulator.ik import Kinematics

Array = NDArray[np.float64]

# The gripper pointing straight down at home. Every pose returned by the simulator has its
# quaternion in this hemisphere, so that the sign does not flip.
HOME_QUAT = np.array([0.0, 1.0, 0.0, 0.0])

# Larger steps are clipped to this, which moves at the Panda's joint speed limit, 2.175 rad/s.
_MAX_LEAD_RAD = 2.175 * robot.SERVO_LAG_S


class Arm:
    """Joints, gripper and gripper pose of one ``MjData``."""

    def __init__(self, model: Any, data: Any) -> None:
        """Look up the robot's addresses in ``model``; ``data`` is the simulation to act on."""
        import mujoco

        self._mj = mujoco
        self._data = data
        self.kinematics = Kinematics(model, robot.HOME_Q)
        joints = [model.joint(name) for name in robot.ARM_JOINTS]
        self._qpos = np.array([int(joint.qposadr[0]) for joint in joints])
        self._dofs = np.array([int(joint.dofadr[0]) for joint in joints])
        self._ctrl = np.array([int(model.actuator(name).id) for name in robot.ARM_ACTUATORS])
        self._grip_ctrl = int(model.actuator(robot.GRIPPER_ACTUATOR).id)
        self._grip_qpos = int(model.joint(robot.GRIPPER_JOINT).qposadr[0])
        self._tcp = int(model.site(robot.TCP_SITE).id)

    @property
    def q(self) -> Array:
        """Joint positions (7,) rad."""
        return np.array(self._data.qpos[self._qpos], dtype=np.float64)

    @property
    def dq(self) -> Array:
        """Joint velocities (7,) rad/s."""
        return np.array(self._data.qvel[self._dofs], dtype=np.float64)

    @property
    def ee_pose(self) -> Array:
        """Pose (7,) of the point between the fingertips, quaternion in the home hemisphere."""
        quat = np.zeros(4)
        self._mj.mju_mat2Quat(quat, self._data.site_xmat[self._tcp])
        return np.concatenate([self._data.site_xpos[self._tcp], align_quat(quat, HOME_QUAT)])

    @property
    def grip(self) -> float:
        """Opening of the fingers: 1 open, 0 closed."""
        driver = float(self._data.qpos[self._grip_qpos])
        return float(np.clip(1.0 - driver / robot.GRIPPER_CLOSED_RAD, 0.0, 1.0))

    def go_home(self) -> None:
        """Set the home position, the gripper open, at rest."""
        self._data.qpos[self._qpos] = robot.HOME_Q
        self._data.ctrl[self._ctrl] = robot.HOME_Q
        self._data.ctrl[self._grip_ctrl] = 0.0

    def set_targets(self, joints: Array, grip: float) -> None:
        """Set the servo targets: joints (7,) rad and grip (1 open)."""
        q = self.q
        limits = self.kinematics.limits
        lead = np.clip(joints, limits[:, 0], limits[:, 1]) - q
        largest = float(np.abs(lead).max())
        if largest > _MAX_LEAD_RAD:
            lead *= _MAX_LEAD_RAD / largest
        self._data.ctrl[self._ctrl] = q + lead
        closing = 1.0 - float(np.clip(grip, 0.0, 1.0))
        self._data.ctrl[self._grip_ctrl] = closing * robot.GRIPPER_CLOSED_CTRL

    def joints_for(self, pose: Array) -> Array:
        """Joints (7,) that bring the gripper to ``pose`` (7,), solved from the current joints.

        Raises:
            SimulationError: the pose's quaternion has length 0.
        """
        if np.linalg.norm(pose[3:7]) < 1e-6:
            raise SimulationError("the quaternion of the commanded pose has length 0")
        return self.kinematics.solve(pose, self.q)

    def pose_at(self, joints: Array) -> Array:
        """Gripper pose (7,) at joints (7,), quaternion in the home hemisphere."""
        position, matrix = self.kinematics.forward(joints)
        return np.concatenate([position, align_quat(matrix_to_quat(matrix), HOME_QUAT)])

    def from_wire(self, command: Mapping[str, Any], control_mode: str) -> Array:
        """Convert a wire command to the (7,) pose or joints that ``control_mode`` expects.

        Raises:
            SimulationError: another command type, or a vector of the wrong length.
        """
        kind = command.get("type")
        if kind == "cartesian_pos":
            pose = pose_from_wire(_vector(command, "pose", 12))
            pose[3:] = align_quat(pose[3:], HOME_QUAT)
            return pose if control_mode == "cartesian_pos" else self.joints_for(pose)
        if kind == "joint_pos":
            joints = _vector(command, "positions", 7)
            return joints if control_mode == "joint_pos" else self.pose_at(joints)
        raise SimulationError(
            f"unknown robot command {kind!r}; expected 'cartesian_pos' or 'joint_pos'"
        )


def _vector(command: Mapping[str, Any], key: str, length: int) -> Array:
    if key not in command:
        raise SimulationError(f"the {command['type']} command has no {key!r}")
    vector = np.asarray(command[key], dtype=np.float64).reshape(-1)
    if vector.shape != (length,) or not np.isfinite(vector).all():
        raise SimulationError(
            f"{key!r} of a {command['type']} command must be {length} finite numbers, "
            f"got {vector.tolist()}"
        )
    return vector
