"""Scripted experts that solve the tasks, to record demonstrations for imitation learning.

An expert is a function of the current observation alone: it keeps no phase, timer or plan. So a
policy that sees the same robot state and object poses can imitate it, and it recovers from a slip
or a push without special cases. Each command is the current pose moved by a bounded step towards a
goal; the goal's height depends on the remaining horizontal distance, so that approach, descent,
lift and transfer form one smooth funnel instead of stages.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from positronic.errors import SimulationError
from positronic.geom import quat_from_yaw, quat_mul, yaw
from positronic.simulator.arm import HOME_QUAT
from positronic.simulator.robot import SERVO_LAG_S
from positronic.simulator.tasks import CUBE_M, TRAY_FLOOR_M

__all__ = ["Expert", "Goal", "make_expert"]

Array = NDArray[np.float64]

DEFAULT_SPEED_M_S = 0.25

HOVER_M = 0.10  # height above the goal while moving sideways
_FUNNEL_SLOPE = 5.0  # metres of height per metre of remaining horizontal distance
_YAW_WEIGHT_M = 0.04  # horizontal distance equivalent to a radian of heading error
_MAX_TURN_RAD = 0.35  # per step

# The fingers start to close while the gripper still descends. The leeway is a hysteresis: once they
# are closing, the tolerances grow.
_GRASP_ASIDE_M, _GRASP_ABOVE_M = 0.008, 0.016
_CLOSING_GRIP, _CLOSING_LEEWAY = 0.90, 1.4
# Of a cube's four equivalent headings the one nearest to this share of the current heading is
# taken: the arm keeps its direction of turn, and never turns further than 68 degrees.
_TURNED_SHARE = 1 / 3
_HELD_DISTANCE_M = 0.022  # fingertips to the centre of a cube between them
_HELD_GRIP = 0.47  # the fingers stop at 0.42 on a 4 cm cube
_EMPTY_GRIP = 0.30
_RELEASED_GRIP = 0.80
_SET_DOWN_ASIDE_M = 0.006  # within this horizontal distance the cube is lowered completely
_SINK_M = 0.002  # commanded below the goal, so that the cube is set down and not dropped


@dataclass(frozen=True)
class Goal:
    """Target of the held cube: centre, heading and tolerances.

    ``heading`` is the cube's where ``aligned``, so that its sides become parallel to those of what
    it is put on; otherwise it is the gripper's.
    """

    position: Array  # (3,)
    heading: float
    tolerance_xy: float
    tolerance_z: float
    aligned: bool = False


class Expert:
    """Picks up the task's first object and places it at the task's goal."""

    def __init__(self, task: str, control_fps: int, speed: float = DEFAULT_SPEED_M_S) -> None:
        """Create the expert of a task (``stack_cubes`` or ``pick_place``).

        Args:
            task: Short name of the task.
            control_fps: Control steps per second.
            speed: Speed of the gripper in m/s.
        """
        self._task = task
        # A servo with lag tau covers this share of its lead within one control period.
        covered = 1.0 - math.exp(-1.0 / (control_fps * SERVO_LAG_S))
        self._max_step = speed / (control_fps * covered)

    def act(self, observation: Mapping[str, Any]) -> Array:
        """Return the ``cartesian_pos`` action ``(8,)`` for one observation of the environment."""
        tcp = np.asarray(observation["robot_state.ee_pose"], dtype=np.float64)
        grip = float(observation["grip"])
        objects = np.asarray(observation["object_poses"], dtype=np.float64).reshape(-1, 7)
        cube, support = objects[0], objects[1]
        goal = GOALS[self._task](support)

        if self._is_placed(cube, goal):
            return self._release(tcp, grip, cube)
        reach = float(np.linalg.norm(tcp[:3] - cube[:3]))
        if reach < _HELD_DISTANCE_M and _EMPTY_GRIP < grip < _HELD_GRIP:
            return self._carry(tcp, cube, goal)
        return self._fetch(tcp, grip, cube)

    @staticmethod
    def _is_placed(cube: Array, goal: Goal) -> bool:
        offset = cube[:3] - goal.position
        sideways = math.hypot(offset[0], offset[1])
        return sideways < goal.tolerance_xy and abs(offset[2]) < goal.tolerance_z

    def _fetch(self, tcp: Array, grip: float, cube: Array) -> Array:
        """Approach above the cube with open fingers, descend around it, and close."""
        present = float(yaw(tcp[3:]))
        heading = _nearest(_heading(cube), present)
        sideways, above = math.hypot(*(cube[:2] - tcp[:2])), float(tcp[2] - cube[2])
        turn = abs(heading - present)
        height = _funnel(sideways + _YAW_WEIGHT_M * turn - 0.5 * _GRASP_ASIDE_M)
        target = cube[:3] + np.array([0.0, 0.0, height])
        leeway = _CLOSING_LEEWAY if grip < _CLOSING_GRIP else 1.0
        near = sideways < leeway * _GRASP_ASIDE_M and abs(above) < leeway * _GRASP_ABOVE_M
        return self._command(tcp, target, heading, grip=0.0 if near else 1.0)

    def _carry(self, tcp: Array, cube: Array, goal: Goal) -> Array:
        """Lift, move above the goal, and set down, for any pose of the cube in the fingers."""
        held, present = tcp[:3] - cube[:3], float(yaw(tcp[3:]))
        heading = goal.heading
        if goal.aligned:
            heading = _nearest(goal.heading - _heading(cube) + present, present)
        sideways = math.hypot(*(goal.position[:2] - cube[:2]))
        turn = abs(heading - present)
        height = _funnel(sideways + _YAW_WEIGHT_M * turn - _SET_DOWN_ASIDE_M)
        target = goal.position + held + [0.0, 0.0, height - _SINK_M]
        # First lift off the table, then clear the support's height before moving above it.
        lifted = _ramp(cube[2] - CUBE_M / 2, 0.003, 0.02)
        clear = max(_ramp(cube[2] - goal.position[2], 0.0, 0.02), _ramp(sideways, 0.08, 0.12))
        near = 1.0 - _ramp(sideways, 0.004, 0.012)
        target[:2] = tcp[:2] + (target[:2] - tcp[:2]) * max(lifted * clear, near)
        return self._command(tcp, target, heading, grip=0.0)

    def _release(self, tcp: Array, grip: float, cube: Array) -> Array:
        """Open, then retreat straight up."""
        up = HOVER_M + 0.02 if grip > _RELEASED_GRIP else tcp[2] - cube[2]
        target = np.array([tcp[0], tcp[1], cube[2] + up])
        return self._command(tcp, target, float(yaw(tcp[3:])), grip=1.0)

    def _command(self, tcp: Array, target: Array, heading: float, grip: float) -> Array:
        step = target - tcp[:3]
        length = float(np.linalg.norm(step))
        if length > self._max_step:
            step = step * (self._max_step / length)
        present = float(yaw(tcp[3:]))
        turned = present + float(np.clip(heading - present, -_MAX_TURN_RAD, _MAX_TURN_RAD))
        quat = quat_mul(quat_from_yaw(turned), HOME_QUAT)
        return np.concatenate([tcp[:3] + step, quat, [grip]])


def make_expert(env: Any, speed: float = DEFAULT_SPEED_M_S) -> Expert:
    """Create the expert of an environment, which must take ``cartesian_pos`` commands.

    Raises:
        SimulationError: the environment is in another control mode, or its task has no expert.
    """
    inner = env.unwrapped
    if inner.control_mode != "cartesian_pos":
        raise SimulationError(
            f"the expert commands gripper poses, the environment takes {inner.control_mode}; "
            "open it with control_mode='cartesian_pos'"
        )
    if inner.task_name not in GOALS:
        raise SimulationError(
            f"there is no scripted expert of the task {inner.task_name!r}, only of"
            f" {', '.join(GOALS)}; add its goal, or an expert, to {__name__}"
        )
    return Expert(inner.task_name, inner.control_fps, speed)


def _on_cube(support: Array) -> Goal:
    above = np.array([0.0, 0.0, CUBE_M])
    return Goal(support[:3] + above, _heading(support), 0.010, 0.004, aligned=True)


def _in_tray(support: Array) -> Goal:
    above = np.array([0.0, 0.0, TRAY_FLOOR_M + CUBE_M / 2])
    return Goal(support[:3] + above, 0.0, 0.025, 0.004)


# The goal on the task's second object, by the task's short name.
GOALS: dict[str, Callable[[Array], Goal]] = {"stack_cubes": _on_cube, "pick_place": _in_tray}


def _heading(cube: Array) -> float:
    """One of the four equivalent headings of a cube, whichever face is up."""
    w, x, y, z = cube[3:]
    axes = (
        (1 - 2 * (y * y + z * z), 2 * (x * y + w * z)),
        (2 * (x * y - w * z), 1 - 2 * (x * x + z * z)),
        (2 * (x * z + w * y), 2 * (y * z - w * x)),
    )
    flattest = max(axes, key=lambda axis: math.hypot(*axis))
    return math.atan2(flattest[1], flattest[0])


def _nearest(angle: float, present: float) -> float:
    """Of a cube's four equivalent headings, the one to turn to from ``present``."""
    quarter, middle = math.pi / 2, _TURNED_SHARE * present
    return angle - quarter * math.floor((angle - middle) / quarter + 0.5)


def _funnel(distance: float) -> float:
    """Height above the goal at ``distance`` metres of remaining horizontal distance."""
    return min(HOVER_M, _FUNNEL_SLOPE * max(0.0, distance))


def _ramp(value: float, low: float, high: float) -> float:
    """0 below ``low``, 1 above ``high``, linear in between."""
    return min(1.0, max(0.0, (value - low) / (high - low)))
