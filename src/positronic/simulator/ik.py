"""Differential inverse kinematics: joint targets for a pose of the gripper.

Damped least squares (Wampler, 1986; Nakamura and Hanafusa, 1986) with a null-space term towards the
home posture, which determines the redundant seventh degree of freedom (the elbow).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from positronic.geom import normalize_quat
from positronic.simulator.robot import ARM_JOINTS, TCP_SITE

Array = NDArray[np.float64]

DAMPING = 0.02
POSTURE_GAIN = 0.1
MAX_ITERATIONS = 12
MAX_JOINT_STEP = 0.25  # rad per iteration, within the range of the linearisation
POSITION_TOLERANCE_M = 2e-4
ROTATION_TOLERANCE_RAD = 1e-3
# Limits of the error per iteration, as the linearisation is wrong for distant targets.
_MAX_POSITION_STEP_M = 0.10
_MAX_ROTATION_STEP_RAD = 0.5


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
