"""Scene: table, light, cameras, robot and a task's objects, as one compiled ``MjModel``."""

import hashlib
import importlib.metadata
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from foundation.cache import cache_root
from positronic.simulator import meshes, robot, tasks

logger = logging.getLogger(__name__)

# Signal name -> camera of the model.
CAMERAS = {
    "image.wrist": robot.WRIST_CAMERA,
    "image.exterior": "exterior",
    "image.agent_view": "agent_view",
}
# Camera -> position, the point it looks at, vertical field of view [deg].
_WORLD_CAMERAS = {
    "exterior": ((1.32, 0.0, 0.74), (0.47, 0.0, 0.05), 27.0),
    "agent_view": ((0.75, 0.90, 0.60), (0.46, 0.0, 0.09), 33.0),
}

TIMESTEP_S = 1 / 480


def load_model(task: tasks.Task) -> Any:
    """Return the compiled ``MjModel`` of a task, from the cache if present.

    Building reads and decimates some 30 MB of meshes, which takes seconds; the compiled file loads
    in a few hundredths of a second. It is kept in ``$XDG_CACHE_HOME/positronic``
    (``~/.cache/positronic``), named by a digest of the task, source files and package versions.

    Raises:
        MissingDependency: the ``gym-hil`` wheel, which has the robot model, is not installed.
    """
    import mujoco

    path = cache_path(task)
    if path.is_file():
        try:
            return mujoco.MjModel.from_binary_path(str(path))
        except (ValueError, mujoco.FatalError) as error:
            logger.warning("rebuilding the damaged cached model %s: %s", path, error)
    model = build(task).compile()
    try:
        _save(model, path)
    except OSError as error:
        logger.warning("could not cache the compiled model in %s: %s", path, error)
    return model


def cache_path(task: tasks.Task) -> Path:
    """Path of the cached compiled model of ``task``."""
    digest = hashlib.sha256()
    for package in ("mujoco", "gym-hil"):
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            version = "none"
        digest.update(f"{package}={version};".encode())
    for module in (meshes, robot, tasks):
        digest.update(Path(str(module.__file__)).read_bytes())
    digest.update(Path(__file__).read_bytes())
    return cache_root() / "positronic" / f"{task.name}-{digest.hexdigest()[:16]}.mjb"


def build(task: tasks.Task) -> Any:
    """Build the ``MjSpec`` of a task; the table's top is ``z = 0``, x points away from the base."""
    import mujoco

    spec = mujoco.MjSpec()
    spec.modelname = task.name
    spec.option.timestep = TIMESTEP_S
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10.0  # a held cube must not creep out of the fingers
    spec.visual.quality.offsamples = 0  # antialiasing takes longer than the rest of the rendering
    spec.visual.map.znear = 0.01
    spec.visual.headlight.ambient = [0.42, 0.42, 0.43]
    spec.visual.headlight.diffuse = [0.10, 0.10, 0.10]
    spec.visual.headlight.specular = [0.0, 0.0, 0.0]
    spec.stat.extent = 1.5
    spec.stat.center = [0.4, 0.0, 0.2]

    _add_room(spec)
    for name, (position, target, fovy) in _WORLD_CAMERAS.items():
        spec.worldbody.add_camera(
            name=name, pos=position, quat=_look_at(position, target), fovy=fovy
        )
    spec.attach(robot.load_robot(), prefix=robot.PREFIX, frame=spec.worldbody.add_frame())
    hand = spec.body(f"{robot.PREFIX}attachment")
    # Beside the gripper, tilted so that the point between the fingertips is visible.
    position, target = (-0.075, 0.0, 0.02), (-0.015, 0.0, 0.25)
    hand.add_camera(
        name=robot.WRIST_CAMERA,
        pos=position,
        quat=_look_at(position, target, up=(-1.0, 0.0, 0.0)),
        fovy=62.0,
    )
    task.add_objects(spec)
    return spec


def _add_room(spec: Any) -> None:
    import mujoco

    spec.add_texture(
        name="sky",
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=[0.80, 0.86, 0.92],
        rgb2=[0.55, 0.63, 0.72],
        width=64,
        height=64,
    )
    world = spec.worldbody
    world.add_light(pos=[0.3, -0.8, 1.8], dir=[0.1, 0.45, -1.0], diffuse=[0.46, 0.45, 0.43])
    world.add_light(pos=[1.2, 0.9, 1.6], dir=[-0.5, -0.5, -1.0], diffuse=[0.26, 0.27, 0.29])
    world.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=[0.35, 0.0, -0.025],
        size=[0.55, 0.55, 0.025],
        rgba=[0.74, 0.68, 0.60, 1.0],
        friction=[0.8, 0.005, 0.0001],
    )
    world.add_geom(
        name="floor",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        pos=[0.0, 0.0, -0.75],
        size=[4.0, 4.0, 0.1],
        rgba=[0.42, 0.45, 0.50, 1.0],
    )


def _look_at(
    position: tuple[float, ...],
    target: tuple[float, ...],
    up: tuple[float, ...] = (0.0, 0.0, 1.0),
) -> list[float]:
    """Orientation (wxyz) of a camera at ``position`` that looks at ``target``, ``up`` upwards."""
    from positronic.geom import matrix_to_quat

    back = np.subtract(position, target)  # a MuJoCo camera looks along its own -z
    back /= np.linalg.norm(back)
    right = np.cross(up, back)
    right /= np.linalg.norm(right)
    quat = matrix_to_quat(np.stack([right, np.cross(back, right), back], axis=1))
    return [float(x) for x in quat]


def _save(model: Any, path: Path) -> None:
    """Write to a temporary file and rename, so that other processes never read a partial file."""
    import mujoco

    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
    os.close(handle)
    try:
        mujoco.mj_saveModel(model, temporary, None)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
