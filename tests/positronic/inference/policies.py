"""Small real policies: the scripted expert, and one that stays where it is."""

from collections.abc import Mapping
from typing import Any

import configuronic as cfn
import numpy as np

from positronic.geom import pose_to_wire
from positronic.policy import Action

FPS = 15


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


def _action(pose: np.ndarray[Any, Any], grip: float, index: int) -> Action:
    command = {"type": "cartesian_pos", "pose": pose_to_wire(np.asarray(pose, dtype=np.float64))}
    return {"robot_command": command, "target_grip": grip, "timestamp": index / FPS}


expert = cfn.Config(ExpertPolicy, task="stack_cubes")
hold = cfn.Config(HoldPolicy)
