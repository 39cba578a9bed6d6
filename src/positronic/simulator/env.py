"""Gymnasium environment: a Panda on a table, commanded at 15 Hz in task or joint space."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from foundation.errors import UsageError
from positronic.errors import SimulationError
from positronic.geom import align_quat, pose_to_wire, quat_from_yaw, quat_mul
from positronic.simulator import gl, scene, tasks
from positronic.simulator.arm import Arm
from positronic.simulator.environments import ENVIRONMENTS
from positronic.simulator.failures import FailureWatch
from positronic.simulator.rendering import Cameras

__all__ = ["PandaEnv"]

Array = NDArray[np.float64]
Observation = dict[str, Any]
ControlMode = Literal["cartesian_pos", "joint_pos"]

PHYSICS_HZ = 480
SUCCESS_HOLD_S = 0.4
RENDER_SIZE = (480, 640)
_SETTLE_STEPS = 3
# AR(1) coefficient of the command noise: slow drift, as the servos would filter out white noise.
_NOISE_MEMORY = 0.8
_NOISE_RAD_PER_M = 8.0


class PandaEnv(gymnasium.Env[Observation, Any]):
    """A task on the table; the same seed and actions give the same bits.

    Observations are a dict of the raw signals: ``robot_state.q`` and ``.dq`` (7,) float32,
    ``robot_state.ee_pose`` (7,) float64 ``[x y z qw qx qy qz]``, ``grip`` () float32 (1 open, 0
    closed), ``object_poses`` (7 n,) float64 in the order of the task's objects, and each camera
    as uint8 (H, W, 3). An action is float64 (8,): a gripper pose (``cartesian_pos``) or joint
    positions (``joint_pos``), then the target grip. ``info["is_success"]`` is True when the goal
    has held for 0.4 s, which terminates the episode with reward 1. ``info["failure_cause"]`` says
    why the episode would count as failed if it ended now (`positronic.simulator.failures`).
    """

    # A mutable class attribute, as Gymnasium declares it.
    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012

    def __init__(
        self,
        task: str = "stack_cubes",
        cameras: Sequence[str] | None = ("image.wrist", "image.exterior"),
        image_size: tuple[int, int] = (240, 320),
        control_mode: ControlMode = "cartesian_pos",
        control_fps: int = 15,
        yaw_range: float | None = None,
        command_noise: float = 0.0,
        render_mode: str | None = None,
    ) -> None:
        """Open the scene.

        Args:
            task: ``stack_cubes`` or ``pick_place``.
            cameras: Image signals to render into every observation; empty or None renders nothing.
            image_size: Height and width of the images.
            control_mode: Meaning of the first seven numbers of an action.
            control_fps: Control steps per second.
            yaw_range: Maximum start yaw of the objects in rad; the task has a default.
            command_noise: Standard deviation in metres of a slow random drift added to each
                commanded position (and 8 rad per metre of it to the heading).
            render_mode: ``rgb_array`` makes ``render`` return the exterior view.

        Raises:
            UsageError: an argument is invalid.
            MissingDependency: the robot model or, with cameras, OpenGL is not installed.
        """
        self.cameras = tuple(cameras or ())
        self.image_size = _checked_size(image_size)
        self.render_mode = render_mode
        self.control_mode: ControlMode = control_mode
        self.control_fps = int(control_fps)
        self._command_noise = float(command_noise)
        if task not in tasks.TASKS:
            raise UsageError(f"unknown task {task!r}; expected one of {', '.join(tasks.TASKS)}")
        self._task = tasks.TASKS[task]
        self._yaw_range = self._task.yaw_range if yaw_range is None else float(yaw_range)
        self._check_arguments()
        self.metadata = {**type(self).metadata, "render_fps": self.control_fps}

        gl.select_backend(required=bool(self.cameras) or render_mode is not None)
        import mujoco

        self._mj = mujoco
        self.model = scene.load_model(self._task)
        self._substeps = max(1, round(PHYSICS_HZ / self.control_fps))
        self.model.opt.timestep = 1.0 / (self.control_fps * self._substeps)
        self.data = mujoco.MjData(self.model)
        self._arm = Arm(self.model, self.data)
        bodies = [self.model.joint(name) for name in self._task.objects]
        self._object_qpos = [int(joint.qposadr[0]) for joint in bodies]
        self._object_dofs = [int(joint.dofadr[0]) for joint in bodies]
        self._views: dict[tuple[int, int], Cameras] = {}
        self._failure = FailureWatch(self.model, self.data, self._task)
        self._held = 0
        self._drift = np.zeros(4)
        self.observation_space = self._make_observation_space()
        self.action_space = self._make_action_space()

    # -- properties

    @property
    def task(self) -> str:
        """The task's text, as given to a policy."""
        return self._task.text

    @property
    def task_name(self) -> str:
        """Short name of the task: ``stack_cubes`` or ``pick_place``."""
        return self._task.name

    @property
    def objects(self) -> tuple[str, ...]:
        """Names of the objects, in the order of ``object_poses``."""
        return self._task.objects

    @property
    def statics(self) -> dict[str, Any]:
        """Static values to record with each episode."""
        return {
            "task": self.task,
            "joint_names": [f"joint{i}" for i in range(1, 8)],
            "object_names": list(self.objects),
            "grip_convention": {"open": 1.0, "closed": 0.0},
            "pose_signals": ["robot_state.ee_pose", "robot_commands.pose"],
            "joint_signal": "robot_state.q",
            "control_fps": self.control_fps,
            "simulation.env_id": ENVIRONMENTS[self._task.name],
            "simulation.control_mode": self.control_mode,
            "simulation.yaw_range": self._yaw_range,
            "simulation.command_noise": self._command_noise,
            "simulation.mujoco_version": self._mj.__version__,
        }

    # -- Gymnasium

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Move the arm home and draw the objects' poses from the seed."""
        super().reset(seed=seed)
        self._mj.mj_resetData(self.model, self.data)
        self._held = 0
        self._failure.reset()
        self._drift[:] = 0.0
        data = self.data
        self._arm.go_home()
        poses = self._task.sample(self.np_random, self._yaw_range)
        for address, pose in zip(self._object_qpos, poses, strict=True):
            data.qpos[address : address + 7] = pose
        self._mj.mj_step(self.model, data, nstep=_SETTLE_STEPS * self._substeps)
        data.time = 0.0
        self._mj.mj_forward(self.model, data)
        return self._observe(), self._info()

    def step(
        self, action: NDArray[np.float64]
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Apply one command and simulate ``1 / control_fps`` seconds.

        Raises:
            SimulationError: the action has the wrong shape or is not finite.
        """
        command = np.asarray(action, dtype=np.float64)
        if command.shape != (8,) or not np.isfinite(command).all():
            raise SimulationError(
                f"an action must be 8 finite numbers ({self.control_mode}, then grip), "
                f"got shape {command.shape}: {command.tolist()}"
            )
        if self.control_mode == "cartesian_pos":
            joints = self._arm.joints_for(self._with_noise(command[:7]))
        else:
            joints = command[:7]
        self._arm.set_targets(joints, command[7])
        self._mj.mj_step(self.model, self.data, nstep=self._substeps)
        # mj_step integrates after computing derived quantities: update them to the new positions.
        self._mj.mj_forward(self.model, self.data)

        state = self._scene_state()
        self._held = self._held + 1 if self._task.is_done(state) else 0
        self._failure.update(state)
        info = self._info()
        success = bool(info["is_success"])
        return self._observe(), float(success), success, False, info

    def render(self) -> NDArray[np.uint8] | None:
        """Image of the exterior camera, uint8 (480, 640, 3); None without a render mode."""
        if self.render_mode is None:
            return None
        return self._image("image.exterior", RENDER_SIZE)

    def close(self) -> None:
        """Free the rendering contexts; may be called repeatedly."""
        while self._views:
            self._views.popitem()[1].close()

    # -- in addition to Gymnasium's interface

    def command_to_action(
        self, robot_command: Mapping[str, Any], target_grip: float
    ) -> NDArray[np.float64]:
        """Convert a wire command to an action ``(8,)`` of this environment.

        ``{"type": "cartesian_pos", "pose": (12,)}`` and ``{"type": "joint_pos", "positions":
        (7,)}`` are accepted in either control mode.

        Raises:
            SimulationError: another command type, or a vector of the wrong length.
        """
        goal = self._arm.from_wire(robot_command, self.control_mode)
        return np.append(goal, float(target_grip))

    def action_to_command(self, action: NDArray[np.float64]) -> tuple[dict[str, Any], float]:
        """Invert ``command_to_action``: the wire command of an action, and the target grip."""
        if self.control_mode == "cartesian_pos":
            return {"type": "cartesian_pos", "pose": pose_to_wire(action[:7])}, float(action[7])
        return {"type": "joint_pos", "positions": np.array(action[:7])}, float(action[7])

    def sim_state(self) -> NDArray[np.float64]:
        """The full physics state (``mjSTATE_INTEGRATION``), sufficient to continue from."""
        kind = self._mj.mjtState.mjSTATE_INTEGRATION
        state = np.zeros(self._mj.mj_stateSize(self.model, kind))
        self._mj.mj_getState(self.model, self.data, state, kind)
        return state

    def set_sim_state(self, state: NDArray[np.float64]) -> Observation:
        """Restore a state from ``sim_state`` and return its observation.

        Raises:
            SimulationError: the vector has another length than this scene's state.
        """
        kind = self._mj.mjtState.mjSTATE_INTEGRATION
        size = int(self._mj.mj_stateSize(self.model, kind))
        if np.shape(state) != (size,):
            raise SimulationError(
                f"a state of {self._task.name} has {size} numbers, got shape {np.shape(state)}"
            )
        self._mj.mj_setState(self.model, self.data, np.asarray(state, np.float64), kind)
        self._held = 0
        self._failure.reset()
        self._mj.mj_forward(self.model, self.data)
        return self._observe()

    # -- private

    def _check_arguments(self) -> None:
        unknown = [name for name in self.cameras if name not in scene.CAMERAS]
        if unknown:
            raise UsageError(
                f"unknown camera {unknown[0]!r}; expected some of {', '.join(scene.CAMERAS)}"
            )
        if self.control_mode not in ("cartesian_pos", "joint_pos"):
            raise UsageError(
                f"unknown control mode {self.control_mode!r}; "
                "expected 'cartesian_pos' or 'joint_pos'"
            )
        if not 1 <= self.control_fps <= PHYSICS_HZ:
            raise UsageError(f"control_fps is {self.control_fps}; expected 1 to {PHYSICS_HZ}")
        if self.render_mode not in (None, "rgb_array"):
            raise UsageError(f"render mode {self.render_mode!r}; expected 'rgb_array' or none")
        if self._command_noise < 0 or self._yaw_range < 0:
            raise UsageError("command_noise and yaw_range: expected 0 or more")

    def _with_noise(self, pose: Array) -> Array:
        if self._command_noise == 0.0:
            return pose
        fresh = self.np_random.normal(size=4) * np.sqrt(1 - _NOISE_MEMORY**2)
        self._drift = _NOISE_MEMORY * self._drift + fresh
        offset = self._drift * self._command_noise
        spin = quat_from_yaw(offset[3] * _NOISE_RAD_PER_M)
        return np.concatenate([pose[:3] + offset[:3], quat_mul(spin, pose[3:])])

    def _object_poses(self) -> Array:
        poses = np.stack([self.data.qpos[a : a + 7] for a in self._object_qpos])
        # Upright objects yaw by less than half a turn, so w stays positive.
        poses[:, 3:] = align_quat(poses[:, 3:], np.array([1.0, 0.0, 0.0, 0.0]))
        return poses

    def _scene_state(self) -> tasks.SceneState:
        return tasks.SceneState(
            tcp=self._arm.ee_pose[:3],
            grip=self._arm.grip,
            poses=self._object_poses(),
            velocities=np.stack([self.data.qvel[a : a + 3] for a in self._object_dofs]),
        )

    def _observe(self) -> Observation:
        observation: Observation = {
            "robot_state.q": self._arm.q.astype(np.float32),
            "robot_state.dq": self._arm.dq.astype(np.float32),
            "robot_state.ee_pose": self._arm.ee_pose,
            "grip": np.array(self._arm.grip, dtype=np.float32),
            "object_poses": self._object_poses().reshape(-1),
        }
        for name in self.cameras:
            observation[name] = self._image(name, self.image_size)
        return observation

    def _info(self) -> dict[str, Any]:
        success = self._held >= max(1, round(SUCCESS_HOLD_S * self.control_fps))
        return {"is_success": success, "failure_cause": None if success else self._failure.cause}

    def _image(self, signal: str, size: tuple[int, int]) -> NDArray[np.uint8]:
        if size not in self._views:
            self._views[size] = Cameras(self.model, size)
        return self._views[size].render(self.data, scene.CAMERAS[signal])

    def _make_observation_space(self) -> spaces.Dict:
        n = len(self.objects)
        pose = np.array([100.0] * 3 + [1.0] * 4)
        boxes: dict[str, spaces.Space[Any]] = {
            "robot_state.q": spaces.Box(-2 * np.pi, 2 * np.pi, (7,), np.float32),
            "robot_state.dq": spaces.Box(-100.0, 100.0, (7,), np.float32),
            "robot_state.ee_pose": spaces.Box(-pose, pose, dtype=np.float64),
            "grip": spaces.Box(0.0, 1.0, (), np.float32),
            "object_poses": spaces.Box(-np.tile(pose, n), np.tile(pose, n), dtype=np.float64),
        }
        for name in self.cameras:
            boxes[name] = spaces.Box(0, 255, (*self.image_size, 3), np.uint8)
        return spaces.Dict(boxes)

    def _make_action_space(self) -> spaces.Box:
        if self.control_mode == "joint_pos":
            low, high = self._arm.kinematics.limits.T
        else:
            high = np.ones(7)
            low = -high
        return spaces.Box(np.append(low, 0.0), np.append(high, 1.0), dtype=np.float64)


def _checked_size(size: Sequence[int]) -> tuple[int, int]:
    if len(size) != 2 or min(size) < 8 or max(size) > 4096:
        raise UsageError(f"image_size is {tuple(size)}; expected (height, width) of 8 to 4096")
    return int(size[0]), int(size[1])
