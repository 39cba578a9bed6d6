"""Tasks on the table: their objects, start states and success conditions."""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from positronic.geom import quat_from_yaw, quat_to_matrix

Array = NDArray[np.float64]

CUBE_M = 0.04  # edge
TRAY_M = 0.13  # outer edge
TRAY_FLOOR_M = 0.004
TRAY_WALL_M = 0.016  # height above the table

RED = (0.86, 0.16, 0.14, 1.0)
GREEN = (0.17, 0.62, 0.24, 1.0)
BLUE = (0.20, 0.42, 0.78, 1.0)

# Success thresholds. Speeds are linear, of the body's centre, in the world frame.
MAX_OFFSET_M = 0.02  # horizontal distance of the two centres: at most half a cube hangs over
MAX_HEIGHT_ERROR_M = 0.006
MAX_SPEED_M_S = 0.02
MIN_GRIP_OPEN = 0.75
MIN_CLEARANCE_M = 0.05  # fingertips to the centre of the released object

# Rejection sampling needs a few draws; so many rejections mean that the area is too small.
_MAX_DRAWS = 1000


@dataclass(frozen=True)
class SceneState:
    """Input of the success conditions, in SI units and the world frame."""

    tcp: Array  # (3,) between the fingertips
    grip: float  # 1 open, 0 closed
    poses: Array  # (n, 7) objects
    velocities: Array  # (n, 3) linear


class Task(Protocol):
    """One task: text, objects, start states and success condition."""

    @property
    def name(self) -> str:
        """Short name, as on the command line."""

    @property
    def text(self) -> str:
        """The task's text, as given to a policy."""

    @property
    def objects(self) -> tuple[str, ...]:
        """Names of the objects; the first is the one to move, the second the place it goes to."""

    @property
    def yaw_range(self) -> float:
        """Default maximum start yaw of the objects, in rad."""

    def add_objects(self, spec: Any) -> None:
        """Add one free body per object to the ``MjSpec`` of the world."""

    def sample(self, rng: np.random.Generator, yaw_range: float) -> Array:
        """Draw start poses ``(n, 7)`` that do not overlap; yaw within ``±yaw_range`` rad."""

    def place(self, poses: Array) -> Array:
        """Return where the first object's centre ``(3,)`` is to go; ``poses`` (n, 7) are of all."""

    def is_placed(self, poses: Array) -> bool:
        """Return whether the first object is there, held or not."""

    def is_done(self, state: SceneState) -> bool:
        """Return whether the goal holds at this instant."""


@dataclass(frozen=True)
class StackCubes:
    """Put the red cube on the green one."""

    name: str = "stack_cubes"
    text: str = "Pick up the red cube and place it on the green cube."
    objects: tuple[str, ...] = ("red_cube", "green_cube")
    yaw_range: float = math.pi / 4  # covers all headings, as a cube looks the same every 90°

    def add_objects(self, spec: Any) -> None:
        """Add both cubes."""
        _add_cube(spec, "red_cube", RED)
        _add_cube(spec, "green_cube", GREEN)

    def sample(self, rng: np.random.Generator, yaw_range: float) -> Array:
        """Draw both cubes anywhere in a 20 x 36 cm area, centres at least 10 cm apart."""
        for _ in range(_MAX_DRAWS):
            xy = rng.uniform([0.40, -0.18], [0.60, 0.18], size=(2, 2))
            if np.linalg.norm(xy[0] - xy[1]) >= 0.10:
                yaws = rng.uniform(-yaw_range, yaw_range, size=2)
                return _resting(xy, [CUBE_M / 2, CUBE_M / 2], yaws)
        raise AssertionError("the cubes' area is large enough for two of them")

    def place(self, poses: Array) -> Array:
        """Return the point one cube above the centre of the green one."""
        return poses[1, :3] + [0.0, 0.0, CUBE_M]

    def is_placed(self, poses: Array) -> bool:
        """Return whether red is on green, and green on the table."""
        offset = poses[0, :3] - self.place(poses)
        return bool(
            abs(poses[1, 2] - CUBE_M / 2) < MAX_HEIGHT_ERROR_M
            and math.hypot(offset[0], offset[1]) < MAX_OFFSET_M
            and abs(offset[2]) < MAX_HEIGHT_ERROR_M
        )

    def is_done(self, state: SceneState) -> bool:
        """Return whether red rests on green, green on the table, and the gripper is clear."""
        return self.is_placed(state.poses) and is_still(state) and _is_released(state)


@dataclass(frozen=True)
class PickPlace:
    """Put the cube into the tray."""

    name: str = "pick_place"
    text: str = "Pick up the red cube and place it in the blue tray."
    objects: tuple[str, ...] = ("cube", "tray")
    yaw_range: float = math.pi / 12  # small, as the heading is hard to see in a 64 x 64 image

    def add_objects(self, spec: Any) -> None:
        """Add the cube and the tray, which is free to slide as well."""
        _add_cube(spec, "cube", RED)
        _add_tray(spec, "tray", BLUE)

    def sample(self, rng: np.random.Generator, yaw_range: float) -> Array:
        """Draw the cube on the robot's right, the tray on its left."""
        cube = rng.uniform([0.42, -0.18], [0.58, -0.02])
        tray = rng.uniform([0.44, 0.11], [0.56, 0.17])
        yaws = rng.uniform(-yaw_range, yaw_range, size=2)
        return _resting(np.stack([cube, tray]), [CUBE_M / 2, 0.0], yaws)

    def place(self, poses: Array) -> Array:
        """Return the centre of a cube in the middle of the tray's floor."""
        return poses[1, :3] + quat_to_matrix(poses[1, 3:]) @ [0.0, 0.0, TRAY_FLOOR_M + CUBE_M / 2]

    def is_placed(self, poses: Array) -> bool:
        """Return whether the cube is flat on the tray's floor."""
        offset = quat_to_matrix(poses[1, 3:]).T @ (poses[0, :3] - self.place(poses))
        return bool(
            np.abs(offset[:2]).max() < (TRAY_M - CUBE_M) / 2 and abs(offset[2]) < MAX_HEIGHT_ERROR_M
        )

    def is_done(self, state: SceneState) -> bool:
        """Return whether the cube rests flat on the tray's floor and the gripper is clear."""
        return self.is_placed(state.poses) and is_still(state) and _is_released(state)


TASKS: dict[str, Task] = {task.name: task for task in (StackCubes(), PickPlace())}


def is_still(state: SceneState) -> bool:
    """Return whether no object moves."""
    return bool(np.linalg.norm(state.velocities, axis=1).max() < MAX_SPEED_M_S)


def _is_released(state: SceneState) -> bool:
    clearance = np.linalg.norm(state.tcp - state.poses[0, :3])
    return bool(state.grip > MIN_GRIP_OPEN and clearance > MIN_CLEARANCE_M)


def _resting(xy: Array, heights: list[float], yaws: Array) -> Array:
    return np.concatenate([xy, np.array(heights)[:, None], quat_from_yaw(yaws)], axis=1)


def _add_cube(spec: Any, name: str, rgba: tuple[float, ...]) -> None:
    import mujoco

    body = spec.worldbody.add_body(name=name)
    body.add_freejoint(name=name)
    half = CUBE_M / 2
    body.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[half, half, half],
        rgba=rgba,
        density=500.0,
        friction=[0.8, 0.005, 0.0001],
    )


def _add_tray(spec: Any, name: str, rgba: tuple[float, ...]) -> None:
    """Four low walls on a floor; the body's origin is in the middle of the underside."""
    import mujoco

    body = spec.worldbody.add_body(name=name)
    body.add_freejoint(name=name)
    half, wall, floor, height = TRAY_M / 2, 0.003, TRAY_FLOOR_M / 2, TRAY_WALL_M / 2
    boxes = {
        "floor": ([0.0, 0.0, floor], [half, half, floor]),
        "left": ([0.0, half - wall, height], [half, wall, height]),
        "right": ([0.0, wall - half, height], [half, wall, height]),
        "front": ([half - wall, 0.0, height], [wall, half, height]),
        "back": ([wall - half, 0.0, height], [wall, half, height]),
    }
    for part, (pos, size) in boxes.items():
        shade = 0.8 if part == "floor" else 1.0
        body.add_geom(
            name=f"{name}_{part}",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=pos,
            size=size,
            rgba=[*(shade * c for c in rgba[:3]), 1.0],
            density=1500.0,
            friction=[0.8, 0.005, 0.0001],
        )
