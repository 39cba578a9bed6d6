"""Arm in a running MuJoCo simulation: reads its state, sets its targets."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from positronic.errors import SimulationError
from positronic.geom import align_quat, matrix_to_quat, normalize_quat, pose_from_wire
from positronic.simulator import robot
from positronic.simulator.robot import ARM_JOINTS, TCP_SITE

DAMPING = 0.02
POSTURE_GAIN = 0.1
MAX_ITERATIONS = 12
MAX_JOINT_STEP = 0.25  # rad per iteration, within the range of the linearisation
POSITION_TOLERANCE_M = 2e-4
ROTATION_TOLERANCE_RAD = 1e-3
# Limits of the error per iteration, as the linearisation is wrong for distant targets.
_MAX_POSITION_STEP_M = 0.10
_MAX_ROTATION_STEP_RAD = 0.5


Array = NDArray[np.float64]

# The gripper pointing straight down at home. Every pose returned by the simulator has its
# quaternion in this hemisphere, so that the sign does not flip.
HOME_QUAT = np.array([0.0, 1.0, 0.0, 0.0])

# Larger steps are clipped to this, which moves at the Panda's joint speed limit, 2.175 rad/s.
_MAX_LEAD_RAD = 2.175 * robot.SERVO_LAG_S


class Kinematics:
    """Solves for the 7 arm joints on its own scratch ``MjData``; the simulation is unchanged."""

    def __init__(self, model: Any, home: Array) -> None:
        """Create a solver of ``model`` with the null-space posture ``home`` ``(7,)`` rad."""
        import mujoco

        self._mj = mujoco
        self._model = model
        self._data = mujoco.MjData(model)
        self._home = np.asarray(home, dtype=np.float64)
        joints = [model.joint(name) for name in ARM_JOINTS]
        self._qpos = np.array([int(joint.qposadr[0]) for joint in joints])
        self._dofs = np.array([int(joint.dofadr[0]) for joint in joints])
        self.limits = np.array([joint.range for joint in joints], dtype=np.float64)
        self._site = int(model.site(TCP_SITE).id)
        self._jacobian = np.zeros((6, model.nv))
        self._error = np.zeros(6)

    def solve(self, pose: Array, start: Array) -> Array:
        """Find joints ``(7,)`` rad that bring the gripper to ``pose`` ``(7,)``.

        The iterations start at the joints ``start``. A pose out of reach gives the closest joints
        found, within the limits; it is not an error, because policies command such poses.
        """
        q = np.clip(start, self.limits[:, 0], self.limits[:, 1])
        quat = normalize_quat(pose[3:7])
        for _ in range(MAX_ITERATIONS):
            error = self._pose_error(q, pose[:3], quat)
            jacobian = self._arm_jacobian()
            square = jacobian @ jacobian.T + DAMPING**2 * np.eye(6)
            posture = POSTURE_GAIN * (self._home - q)
            # J^+ e + (1 - J^+ J) z, written with one solve.
            step = posture + jacobian.T @ np.linalg.solve(square, error - jacobian @ posture)
            largest = np.abs(step).max()
            if largest > MAX_JOINT_STEP:
                step *= MAX_JOINT_STEP / largest
            q = np.clip(q + step, self.limits[:, 0], self.limits[:, 1])
            if (
                np.linalg.norm(error[:3]) < POSITION_TOLERANCE_M
                and np.linalg.norm(error[3:]) < ROTATION_TOLERANCE_RAD
            ):
                break
        return q

    def forward(self, q: Array) -> tuple[Array, Array]:
        """Position ``(3,)`` and rotation matrix ``(3, 3)`` of the gripper at joints ``q``."""
        self._data.qpos[self._qpos] = q
        self._mj.mj_kinematics(self._model, self._data)
        return (
            self._data.site_xpos[self._site].copy(),
            self._data.site_xmat[self._site].reshape(3, 3).copy(),
        )

    def _pose_error(self, q: Array, position: Array, quat: Array) -> Array:
        """Remaining error (6,): metres and a rotation vector in the world frame."""
        data, mj = self._data, self._mj
        data.qpos[self._qpos] = q
        mj.mj_kinematics(self._model, data)
        mj.mj_comPos(self._model, data)
        mj.mj_jacSite(self._model, data, self._jacobian[:3], self._jacobian[3:], self._site)
        current, rotation = np.zeros(4), np.zeros(4)
        mj.mju_mat2Quat(current, data.site_xmat[self._site])
        mj.mju_negQuat(current, current)
        mj.mju_mulQuat(rotation, quat, current)
        mj.mju_quat2Vel(self._error[3:], rotation, 1.0)
        self._error[:3] = position - data.site_xpos[self._site]
        _clip_norm(self._error[:3], _MAX_POSITION_STEP_M)
        _clip_norm(self._error[3:], _MAX_ROTATION_STEP_RAD)
        return self._error

    def _arm_jacobian(self) -> Array:
        return self._jacobian[:, self._dofs]


def _clip_norm(vector: Array, limit: float) -> None:
    length = float(np.linalg.norm(vector))
    if length > limit:
        vector *= limit / length


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
