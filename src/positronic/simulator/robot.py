"""Robot model: Franka Panda with a Robotiq 2F-85, from the files of the ``gym-hil`` wheel.

Only the wheel's files are used; the package itself is never imported (it would import a keyboard
listener and a game controller library).
"""

import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np

from foundation.errors import MissingDependency
from positronic.simulator.meshes import cluster, read_mesh

PREFIX = "robot/"
ARM_JOINTS = tuple(f"{PREFIX}joint{i}" for i in range(1, 8))
ARM_ACTUATORS = tuple(f"{PREFIX}actuator{i}" for i in range(1, 8))
GRIPPER_ACTUATOR = f"{PREFIX}fingers_actuator"
GRIPPER_JOINT = f"{PREFIX}right_driver_joint"
TCP_SITE = f"{PREFIX}pinch"
WRIST_CAMERA = f"{PREFIX}wrist"

GRIPPER_CLOSED_CTRL = 255.0  # ctrl 0 is open
GRIPPER_CLOSED_RAD = 0.8  # driver joint when the empty gripper is closed

# Gripper pointing down above the near edge of the work area, high enough not to occlude it.
HOME_Q = np.array([0.0, -0.35, 0.0, -2.35, 0.0, 2.0, 0.7854])

# Servo stiffness [N m/rad], about 900 /s² times the inertia at each joint in the home position, so
# that all joints respond alike and straight commands give straight paths. The damping makes the arm
# follow its target with a lag of SERVO_LAG_S without overshoot. Both are low enough for a stable
# physics step at the torque limit: stiffer servos oscillate against each other through the elbow.
_STIFFNESS = (900.0, 1600.0, 1100.0, 1100.0, 120.0, 150.0, 100.0)
SERVO_LAG_S = 0.1
_TORQUE_LIMIT = (87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0)  # of the Panda, N m

# As modelled, the fingers close in 0.1 s; the real ones take several times as long.
_GRIPPER_DAMPING = -30.0

_ARM_CELL_M = 0.008
_GRIPPER_CELL_M = 0.004


def model_path() -> Path:
    """Locate the Panda's MJCF file in the installed ``gym-hil`` wheel.

    Raises:
        MissingDependency: the wheel is not installed.
    """
    try:
        files = importlib.metadata.files("gym-hil") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.as_posix() == "gym_hil/assets/panda.xml":
            path = Path(str(file.locate()))
            if path.is_file():
                return path
    raise MissingDependency(
        "the robot model is missing: it comes with gym-hil; install it with: "
        "pip install --no-deps gym-hil==0.1.14"
    )


def load_robot() -> Any:
    """Build the robot's ``MjSpec``: decimated meshes, joint servos, gravity compensation."""
    import mujoco

    path = model_path()
    spec = mujoco.MjSpec.from_file(str(path))
    for mesh in spec.meshes:
        _inline(mesh, path.parent)
    for body in spec.bodies[1:]:
        body.gravcomp = 1.0
    for name, stiffness, limit in zip(ARM_ACTUATORS, _STIFFNESS, _TORQUE_LIMIT, strict=True):
        _make_servo(spec.actuator(name.removeprefix(PREFIX)), stiffness, limit)
    fingers = spec.actuator(GRIPPER_ACTUATOR.removeprefix(PREFIX))
    fingers.biasprm[2] = _GRIPPER_DAMPING
    for sensor in list(spec.sensors):
        spec.delete(sensor)  # unused here, but computed at every physics step
    return spec


def _inline(mesh: Any, folder: Path) -> None:
    import mujoco

    file = Path(mesh.file)
    vertices, faces = read_mesh(folder / file)
    if not (mesh.name or "").endswith(("_c", "_c0", "_c1", "_c2")):
        gripper = file.parts[0] == "robotiq_2f85"
        cell = _GRIPPER_CELL_M if gripper else _ARM_CELL_M
        vertices, faces = cluster(vertices, faces, cell / float(mesh.scale[0]))
    mesh.name = mesh.name or file.stem
    mesh.file = ""
    mesh.uservert = vertices.reshape(-1)
    mesh.userface = faces.reshape(-1)
    # Decimated meshes may not be watertight, but some bodies get their mass from them.
    mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX


def _make_servo(actuator: Any, stiffness: float, torque_limit: float) -> None:
    import mujoco

    actuator.gaintype = mujoco.mjtGain.mjGAIN_FIXED
    actuator.biastype = mujoco.mjtBias.mjBIAS_AFFINE
    actuator.gainprm[0] = stiffness
    actuator.biasprm[:3] = [0.0, -stiffness, -stiffness * SERVO_LAG_S]
    actuator.ctrllimited = False
    actuator.forcelimited = True
    actuator.forcerange = [-torque_limit, torque_limit]
