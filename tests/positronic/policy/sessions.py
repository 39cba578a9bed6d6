"""Sessions whose every action tells when it is meant to be done, so that a test can follow it."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from positronic.policy import Action, Player

FPS = 15


class Timekeeper:
    """Answers with ``count`` actions, each of which commands the control step that it is due at.

    ``wait`` is called in every inference, with its number: it may sleep, block or raise.
    """

    def __init__(
        self,
        count: int = 10,
        wait: Callable[[int], None] = lambda n: None,
        command: Callable[[float, int], dict[str, Any]] | None = None,
        **meta: Any,
    ) -> None:
        self.count, self._wait, self._command = count, wait, command or joints
        self.meta: dict[str, Any] = {"type": "timekeeper", "action_fps": float(FPS), **meta}
        self.asked: list[int] = []
        self.threads: set[threading.Thread] = set()

    def infer(self, obs: Mapping[str, Any]) -> list[Action]:
        self.threads.add(threading.current_thread())
        step = int(obs["step"][0])
        self.asked.append(step)
        n = len(self.asked)
        self._wait(n)
        return [
            {
                "robot_command": self._command(step + i, n),
                "target_grip": float(step + i),
                "timestamp": i / FPS,
            }
            for i in range(self.count)
        ]

    def close(self) -> None:
        pass


def joints(step: float, n: int) -> dict[str, Any]:
    return {"type": "joint_pos", "positions": np.full(7, step)}


def numbered(step: float, n: int) -> dict[str, Any]:
    """Tells apart the chunks: the n-th is 100 n further."""
    return {"type": "joint_pos", "positions": np.full(7, step + 100.0 * n)}


def play(
    player: Player, steps: int, first: int = 0, pause: Callable[[], None] = lambda: None
) -> list[Action]:
    """Play control steps in one buffer that is overwritten, as a simulator might do."""
    buffer = np.zeros(1, np.int64)
    actions = []
    for k in range(first, first + steps):
        buffer[0] = k
        actions.append(player.action({"step": buffer}, (k * 10**9 // FPS) / 1e9))
        buffer[0] = -1
        pause()
    return actions


def grips(actions: list[Action]) -> list[float]:
    return [round(action["target_grip"], 9) for action in actions]


def first_joints(actions: list[Action]) -> list[float]:
    return [float(action["robot_command"]["positions"][0]) for action in actions]


def sleepy(seed: int) -> Callable[[int], None]:
    rng = np.random.default_rng(seed)
    return lambda n: time.sleep(float(rng.uniform(0, 0.003)))
