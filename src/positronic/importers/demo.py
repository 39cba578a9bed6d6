"""Read one demonstration of a robomimic HDF5 file as raw signals.

Layout of the file (robomimic 0.1 to 0.3)::

    data                      attribute env_args: JSON {env_name, type, env_kwargs}
    data/demo_0               attribute model_file: the MuJoCo model (XML)
    data/demo_0/actions       (T, 7)   robosuite: six of the controller, one of the gripper
    data/demo_0/obs/<name>    (T, ...) before the action of the same row
    data/demo_0/next_obs/...  (T, ...) after it (optional)
    data/demo_0/rewards, dones, states  (optional)
    mask/<name>               names of the demos in that split (optional)
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from foundation.documents import Document, Reader
from foundation.text import printable
from positronic.errors import DatasetError, EpisodeError
from positronic.geom import Array
from positronic.importers import robosuite
from positronic.importers.foreign import Foreign

ROBOSUITE_ENV = 1  # robomimic's EnvType


@dataclass(frozen=True)
class Setup:
    """Settings shared by all demos of a file.

    ``controller`` is None if the actions cannot be converted to absolute targets, with the reason
    in ``not_absolute``. ``cameras`` maps names of cameras in the file to signals.
    """

    env_name: str
    env_args: str
    robot: str
    control_fps: int
    controller: robosuite.OscPose | None
    not_absolute: str
    cameras: Mapping[str, str]
    flip_images: bool
    masks: Mapping[str, frozenset[str]]


@dataclass
class Demo:
    """Signals as rows over time, and statics.

    Row i of a signal belongs to control step i. Observations may have one row more than commands:
    the observation after the last command.
    """

    signals: dict[str, NDArray[Any]] = field(default_factory=dict)
    static: dict[str, Any] = field(default_factory=dict)


type _Rate = Annotated[float, Field(gt=0, le=10_000, multiple_of=1)]


UNKNOWN = "unknown"  # robot of a file that does not name it


class _Kwargs(Document):
    control_freq: _Rate
    robots: str | list[str] = UNKNOWN
    controller_configs: dict[str, Any] | None = None


class _EnvArgs(Document):
    env_name: str
    type: int
    env_kwargs: _Kwargs


_READER = Reader(
    error=DatasetError,
    mend="it must be JSON with env_name, type, and env_kwargs with control_freq",
    allow_nan=True,
)


def read_setup(file: Any, cameras: Mapping[str, str], flip_images: bool) -> Setup:
    """Read the shared settings; DatasetError if it is not a robomimic file of robosuite."""
    root = Foreign(file, str(file.filename))
    if "data" not in root:
        raise DatasetError(
            f"{file.filename} has no group 'data', so it is not a robomimic file; "
            "give a dataset as robomimic 0.1 to 0.3 writes it"
        )
    text = root.group("data").attribute("env_args")
    if text is None:
        raise DatasetError(
            f"{file.filename} has no attribute env_args of 'data', like raw robosuite recordings; "
            "convert it first with robomimic's convert_robosuite.py and dataset_states_to_obs.py"
        )
    source = f"{file.filename}: attribute env_args of 'data'"
    everything = _READER.parse_json(text, dict[str, Any], source)
    stated = _READER.validate(everything, _EnvArgs, source)
    env_name, kwargs = printable(stated.env_name), stated.env_kwargs
    if stated.type != ROBOSUITE_ENV:
        raise DatasetError(
            f"{file.filename} was recorded in {env_name!r}, which is not a robosuite environment "
            f"(env_args type {stated.type!r}, expected {ROBOSUITE_ENV})"
        )
    controller, reason = None, ""
    try:
        controller = robosuite.OscPose.from_config(kwargs.controller_configs or {})
    except robosuite.NotAbsolute as error:
        reason = str(error)
    splits = root.group("mask") if "mask" in root else None
    masks = {name: frozenset(splits.texts(name)) for name in splits} if splits else {}
    robot = kwargs.robots if isinstance(kwargs.robots, str) else " ".join(kwargs.robots)
    args, fps = json.dumps(everything), int(kwargs.control_freq)
    return Setup(env_name, args, robot, fps, controller, reason, dict(cameras), flip_images, masks)


def read_demo(file: Any, name: str, setup: Setup) -> Demo:
    """Read one demo; EpisodeError names it, the problem, and the remedy."""
    shown = printable(name)
    try:
        group = Foreign(file, str(file.filename)).group("data").group(name)
        return _read(group, shown, setup)
    except EpisodeError as error:
        if str(error).startswith(shown):
            raise
        raise EpisodeError(f"{shown}: {error}; or drop this demo") from error
    except Exception as error:  # h5py and XML raise many classes for damaged data
        if type(error) is MemoryError:
            raise
        why = printable(error)
        raise EpisodeError(f"{shown} cannot be read: {why}; fix or drop it") from error


def _read(group: Foreign, name: str, setup: Setup) -> Demo:
    if "obs" not in group:
        raise EpisodeError(
            f"{name} has no group 'obs', only simulator states; extract observations first with "
            "robomimic's dataset_states_to_obs.py"
        )
    actions = _rows(group, "actions", name, (7,), None)
    count = len(actions)
    if count == 0:
        raise EpisodeError(f"{name} has no steps; drop it from the file")
    obs = group.group("obs")
    after = group.group("next_obs") if "next_obs" in group else None

    def seen(key: str, shape: tuple[int | None, ...]) -> NDArray[Any]:
        rows = _rows(obs, key, name, shape, count)
        if after is None or key not in after:
            return rows
        return np.concatenate([rows, _rows(after, key, name, shape, count)[-1:]])

    model_xml = group.attribute("model_file")
    quats = robosuite.wxyz(seen("robot0_eef_quat", (4,)))
    poses = np.concatenate([seen("robot0_eef_pos", (3,)), quats], axis=1)
    if model_xml is None and setup.robot not in ("Panda", UNKNOWN):
        raise EpisodeError(
            f"{name} has no model of its {printable(setup.robot, 60)}, so the width of its open "
            "gripper is unknown; export it again with its model_file, or drop it"
        )
    limits = robosuite.finger_limits(model_xml)
    q = seen("robot0_joint_pos", (None,))
    signals: dict[str, NDArray[Any]] = {
        "robot_state.q": _float32(q, "robot0_joint_pos", name),
        "robot_state.dq": _float32(
            seen("robot0_joint_vel", (q.shape[1],)), "robot0_joint_vel", name
        ),
        "robot_state.ee_pose": poses,
        "grip": robosuite.grip_from_fingers(seen("robot0_gripper_qpos", (2,)), limits),
        "target_grip": robosuite.grip_from_action(actions[:, 6]),
        "robomimic.actions": actions,
    }
    if setup.controller is not None:
        signals["robot_commands.pose"] = setup.controller.targets(poses[:count], actions)
    for key in ("rewards", "dones", "states"):
        if key in group:
            rows = group.array(key)
            if len(rows) != count:
                raise EpisodeError(f"{name}: {len(rows)} {key} for {count} actions; fix or drop it")
            signals[f"robomimic.{key}"] = rows
    if "object" in obs:
        objects = seen("object", (None,))
        signals["robomimic.object"] = objects
        signals |= _object_poses(objects, setup.env_name)
    for key in obs:
        if key.endswith("_image"):
            camera = key.removesuffix("_image")
            image = _images(seen(key, (None, None, 3)), key, name)
            signal = setup.cameras.get(camera, f"image.{camera}")
            signals[signal] = image[:, ::-1] if setup.flip_images else image
    return Demo(signals, _statics(name, setup, model_xml, signals))


def _float32(rows: NDArray[Any], key: str, demo: str) -> NDArray[np.float32]:
    """Rows as float32; EpisodeError if a number is out of float32's range."""
    if rows.size and np.abs(rows).max() > np.finfo(np.float32).max:
        raise EpisodeError(f"{demo}: {key!r} has values out of float32's range; drop this demo")
    return rows.astype(np.float32)


def _rows(
    group: Foreign, key: str, demo: str, shape: tuple[int | None, ...], count: int | None
) -> NDArray[Any]:
    """Read one array over time and check it: ``None`` in a shape or as count accepts any."""
    if key not in group:
        raise EpisodeError(
            f"{demo} has no {key!r} in {group.name!r}; export it again with all observations, "
            "or drop this demo"
        )
    rows = group.array(key)
    fits = rows.ndim == len(shape) + 1 and all(
        want is None or want == have for want, have in zip(shape, rows.shape[1:], strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise EpisodeError(
            f"{demo}: {key!r} has shape {rows.shape}, expected (steps, {wanted}): "
            "a single arm with a two-finger gripper; drop this demo"
        )
    if count is not None and len(rows) != count:
        raise EpisodeError(f"{demo}: {len(rows)} rows of {key!r} for {count} actions; drop it")
    if np.issubdtype(rows.dtype, np.floating) and not np.isfinite(rows).all():
        raise EpisodeError(f"{demo}: {key!r} has non-finite values; drop this demo")
    return rows


def _images(rows: NDArray[Any], key: str, demo: str) -> NDArray[np.uint8]:
    if rows.dtype != np.uint8:
        raise EpisodeError(f"{demo}: {key!r} is {rows.dtype}, expected uint8; export it again")
    return rows


def _object_poses(objects: Array, env_name: str) -> dict[str, NDArray[Any]]:
    """Object poses, scalar-first, for the environments whose layout is known."""
    names = robosuite.OBJECTS.get(env_name, ())
    if not names or objects.shape[1] < 7 * len(names):
        return {}
    parts = []
    for index in range(len(names)):
        block = objects[:, 7 * index : 7 * index + 7]
        parts += [block[:, :3], robosuite.wxyz(block[:, 3:])]
    return {"object_poses": np.concatenate(parts, axis=1)}


def _statics(
    name: str, setup: Setup, model_xml: str | None, signals: Mapping[str, Any]
) -> dict[str, Any]:
    static: dict[str, Any] = {
        "robomimic.demo": name,
        "robomimic.env_name": setup.env_name,
        "robomimic.env_args": setup.env_args,
        "robot": setup.robot,
        "joint_signal": "robot_state.q",
        "joint_names": [f"joint{i + 1}" for i in range(signals["robot_state.q"].shape[1])],
        "pose_signals": [k for k in ("robot_state.ee_pose", "robot_commands.pose") if k in signals],
        "grip_convention": {"open": 1.0, "closed": 0.0},
        "control_fps": setup.control_fps,
    }
    if "object_poses" in signals:
        static["object_names"] = list(robosuite.OBJECTS[setup.env_name])
    if model_xml is not None:
        static["robomimic.model_file"] = model_xml
        static["robomimic.model_sha256"] = hashlib.sha256(model_xml.encode()).hexdigest()
    return static | {f"mask.{mask}": name in demos for mask, demos in setup.masks.items()}
