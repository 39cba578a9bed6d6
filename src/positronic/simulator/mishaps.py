"""Mishaps: deliberate perturbations of a demonstration, so that it shows the recovery.

For some steps the arm executes something else than the expert commands: it lets the cube slip,
misses it, closes early, moves on without it, or strays above the goal. Recorded are the expert's
own commands in the states that follow (Laskey et al., 2017, "DART"), so that a policy learns to
recover in states that a perfect run never visits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from positronic.geom import quat_from_yaw, quat_mul

Array = NDArray[np.float64]

KINDS = ("slip", "miss", "pinch", "empty", "stray", "spill")
_CARRY_M, _STEP_M = 0.14, 0.025  # height above the goal; length of a commanded step
_SEED = 7151  # separates these draws from the environment's, which use the seed alone


@dataclass(frozen=True)
class Mishap:
    """One mishap: its trigger, duration, and change to the executed action.

    Attributes:
        kind: one of ``KINDS``.
        trigger: height or distance in metres at which it begins (see ``_begins``).
        steps: duration in control steps.
        offset: metres added to the commanded position, ``(3,)``.
        turn: rad added to the commanded heading.
    """

    kind: str
    trigger: float
    steps: int
    offset: Array
    turn: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Mishap":
        """Draw a mishap of a random kind."""
        kind = KINDS[rng.integers(len(KINDS))]
        low, high = {
            "slip": (0.01, 0.09),
            "miss": (0.015, 0.07),
            "pinch": (0.03, 0.07),
            "empty": (0.03, 0.1),
            "stray": (0.005, 0.06),
            "spill": (0.005, 0.03),
        }[kind]
        angle, radius = rng.uniform(-np.pi, np.pi), rng.uniform(0.01, 0.03)
        return cls(
            kind=kind,
            trigger=float(rng.uniform(low, high)),
            steps=int(rng.integers(*((6, 25) if kind == "empty" else (3, 9)))),
            offset=np.array([radius * np.cos(angle), radius * np.sin(angle), 0.0]),
            turn=float(rng.uniform(-0.4, 0.4)),
        )


class Mishaps:
    """At most one mishap per attempt, determined by the seed."""

    def __init__(self, share: float, seed: int) -> None:
        """Draw whether the attempt has a mishap, and which.

        Args:
            share: Probability that an attempt has one.
            seed: Seed of the attempt.
        """
        rng = np.random.default_rng([seed, _SEED])
        self.begun: Mishap | None = None  # the mishap, once it has begun
        self._planned = Mishap.draw(rng) if rng.random() < share else None
        self._left = self._planned.steps if self._planned else 0

    def execute(self, action: Array, observation: Mapping[str, Any]) -> Array:
        """Return the action ``(8,)`` to execute: ``action``, perturbed during the mishap."""
        mishap = self._planned
        if mishap is None or self._left == 0:
            return action
        if self.begun is None and not _begins(mishap, action, observation):
            return action
        self.begun = mishap
        self._left -= 1
        executed = action.copy()
        if mishap.kind in ("slip", "spill"):
            executed[7] = 1.0
        elif mishap.kind == "pinch":
            executed[7] = 0.0
        elif mishap.kind == "empty":
            executed[:3] = _towards_goal(observation)
            executed[7] = 0.0
        else:
            executed[:3] += mishap.offset
            executed[3:7] = quat_mul(quat_from_yaw(mishap.turn), executed[3:7])
        return executed


def _begins(mishap: Mishap, action: Array, observation: Mapping[str, Any]) -> bool:
    """Return whether cube, goal and gripper meet the condition at which the mishap begins."""
    tcp = np.asarray(observation["robot_state.ee_pose"], dtype=np.float64)[:3]
    objects = np.asarray(observation["object_poses"], dtype=np.float64).reshape(-1, 7)
    cube, support = objects[0, :3], objects[1, :3]
    fetching = action[7] > 0.5
    holding = not fetching and float(np.linalg.norm(tcp - cube)) < 0.03
    to_goal = float(np.hypot(*(support[:2] - cube[:2])))
    match mishap.kind:
        case "slip":
            return holding and float(cube[2]) - 0.02 > mishap.trigger
        case "miss":
            return fetching and float(np.linalg.norm(tcp - cube)) < mishap.trigger
        case "pinch" | "empty":
            return (
                fetching and to_goal > 0.03 and float(np.linalg.norm(tcp - cube)) < mishap.trigger
            )
        case _:
            return holding and to_goal < mishap.trigger and float(cube[2]) > 0.03


def _towards_goal(observation: Mapping[str, Any]) -> Array:
    """Next commanded position ``(3,)`` if the gripper held a cube."""
    tcp = np.asarray(observation["robot_state.ee_pose"], dtype=np.float64)[:3]
    goal = np.asarray(observation["object_poses"], dtype=np.float64).reshape(-1, 7)[1, :3]
    step: Array = goal + np.array([0.0, 0.0, _CARRY_M]) - tcp
    length = float(np.linalg.norm(step))
    return np.asarray(tcp + step * min(1.0, _STEP_M / max(length, 1e-9)))
