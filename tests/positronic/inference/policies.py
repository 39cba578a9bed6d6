"""Small real policies: the scripted expert, and one that stays where it is."""

import os
import signal
import time
from collections.abc import Mapping
from typing import Any

import configuronic as cfn
import numpy as np

from positronic.geom import align_quat, pose_to_wire, quat_conj, quat_mul
from positronic.policy import Action

FPS = 15
PLANNED = ("robot_state.ee_pose", "grip", "object_poses")


class ExpertSession:
    """Answers each observation with the expert's next command, so it is asked at every step."""

    def __init__(self, task: str, meta: dict[str, Any]) -> None:
        from positronic.simulator.expert import Expert

        self.meta = meta
        self._expert = Expert(task, FPS)
        self.closed = False

    def infer(self, obs: Mapping[str, Any]) -> list[Action]:
        command = self._expert.act(obs)
        return [_action(command[:7], float(command[7]), 0)]

    def close(self) -> None:
        self.closed = True


class ExpertPolicy:
    """The scripted expert as a policy."""

    def __init__(self, task: str = "stack_cubes") -> None:
        self.meta: dict[str, Any] = {"type": "expert", "task": task, "action_fps": FPS}
        self._task = task
        self.sessions: list[ExpertSession] = []

    def new_session(self, context: Mapping[str, Any] | None = None) -> ExpertSession:
        self.sessions.append(ExpertSession(self._task, self.meta))
        return self.sessions[-1]

    def close(self) -> None:
        pass


class PlanningSession:
    """Answers with a chunk of the expert's commands, as it foresees what they will do.

    The arm covers half of its lead in a step, the fingers a fifth of theirs, and a held cube comes
    along: near enough to the simulator for a chunk of a second.
    """

    def __init__(self, task: str, meta: dict[str, Any], chunk: int, seconds: float) -> None:
        from positronic.simulator.expert import Expert

        self.meta = meta
        self._expert = Expert(task, FPS)
        self._chunk, self._seconds = chunk, seconds

    def infer(self, obs: Mapping[str, Any]) -> list[Action]:
        time.sleep(self._seconds)
        seen = {name: np.array(obs[name], dtype=np.float64) for name in PLANNED}
        actions = []
        for i in range(self._chunk):
            command = self._expert.act(seen)
            actions.append(_action(command[:7], float(command[7]), i))
            seen = _foreseen(seen, command)
        return actions

    def close(self) -> None:
        pass


class PlanningExpert:
    """The scripted expert as a policy that answers with chunks, and takes ``seconds`` for each."""

    def __init__(self, task: str = "stack_cubes", chunk: int = 15, seconds: float = 0.0) -> None:
        inputs = list(PLANNED)
        self.meta = {"type": "planner", "action_fps": FPS, "contract": {"inputs": inputs}}
        self._task, self._chunk, self._seconds = task, chunk, seconds

    def new_session(self, context: Mapping[str, Any] | None = None) -> PlanningSession:
        return PlanningSession(self._task, self.meta, self._chunk, self._seconds)

    def close(self) -> None:
        pass


def _foreseen(seen: dict[str, Any], command: np.ndarray[Any, Any]) -> dict[str, Any]:
    pose, grip, objects = seen["robot_state.ee_pose"], float(seen["grip"]), seen["object_poses"]
    half = pose[3:] + align_quat(command[3:7], pose[3:])
    moved = np.concatenate([(pose[:3] + command[:3]) / 2, half / np.linalg.norm(half)])
    objects = objects.copy()
    near = np.linalg.norm(pose[:3] - objects[:3]) < 0.022
    if near and grip < 0.47:
        turned = quat_mul(moved[3:], quat_conj(pose[3:]))
        objects[:3] += moved[:3] - pose[:3]
        objects[3:7] = quat_mul(turned, objects[3:7])
    least = 0.41 if near else 0.0
    grip = max(least, grip + 0.2 * (command[7] - grip))
    return {"robot_state.ee_pose": moved, "grip": np.float64(grip), "object_poses": objects}


class HoldSession:
    """Answers with a chunk of ten commands to stay."""

    def __init__(self, meta: dict[str, Any]) -> None:
        self.meta = meta

    def infer(self, obs: Mapping[str, Any]) -> list[Action]:
        pose = np.asarray(obs["robot_state.ee_pose"])
        return [_action(pose, float(obs["grip"]), i) for i in range(10)]

    def close(self) -> None:
        pass


class HoldPolicy:
    """Stays where it is; never solves anything."""

    meta: dict[str, Any]

    def __init__(self) -> None:
        self.meta = {"type": "hold", "action_fps": FPS}

    def new_session(self, context: Mapping[str, Any] | None = None) -> HoldSession:
        return HoldSession(self.meta)

    def close(self) -> None:
        pass


class DeadlyPolicy(HoldPolicy):
    """Holds still, but kills the process that makes ``marker`` a file."""

    def __init__(self, marker: str = "") -> None:
        super().__init__()
        self._marker = marker

    def new_session(self, context: Mapping[str, Any] | None = None) -> HoldSession:
        return DeadlySession(self.meta, self._marker)


class DeadlySession(HoldSession):
    """The session of a `DeadlyPolicy`; dies at its second inference, in the middle of a rollout."""

    def __init__(self, meta: dict[str, Any], marker: str) -> None:
        super().__init__(meta)
        self._marker, self._calls = marker, 0

    def infer(self, obs: Mapping[str, Any]) -> list[Action]:
        self._calls += 1
        if self._calls == 2:
            try:
                os.close(os.open(self._marker, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().infer(obs)


def _action(pose: np.ndarray[Any, Any], grip: float, index: int) -> Action:
    command = {"type": "cartesian_pos", "pose": pose_to_wire(np.asarray(pose, dtype=np.float64))}
    return {"robot_command": command, "target_grip": grip, "timestamp": index / FPS}


expert = cfn.Config(ExpertPolicy, task="stack_cubes")
planner = cfn.Config(PlanningExpert, task="stack_cubes", chunk=15, seconds=0.0)
deadly = cfn.Config(DeadlyPolicy, marker="")
hold = cfn.Config(HoldPolicy)
