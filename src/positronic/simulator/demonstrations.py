"""Demonstrations of the scripted expert, with mishaps it recovers from, as raw episodes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from positronic import simulator
from positronic.geom import quat_from_yaw, quat_mul
from positronic.simulator.expert import DEFAULT_SPEED_M_S, Expert, make_expert

if TYPE_CHECKING:
    from positronic.dataset import DatasetWriter, EpisodeWriter
    from positronic.simulator.env import PandaEnv

Array = NDArray[np.float64]

KINDS = ("slip", "miss", "pinch", "empty", "stray", "spill")
_CARRY_M, _STEP_M = 0.14, 0.025  # height above the goal; length of a commanded step
_SEED = 7151  # separates these draws from the environment's, which use the seed alone


SIM_STATE = "sim_state.mjSTATE_INTEGRATION"


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


@dataclass(frozen=True)
class Attempt:
    """Result for one seed; ``staged`` is the episode's directory if it was kept."""

    seed: int
    success: bool
    steps: int
    staged: Path | None


@dataclass(frozen=True)
class Scenario:
    """Settings of the demonstrations to record.

    ``options`` go to the environment's constructor; ``speed`` is the expert's, in m/s; ``mishaps``
    is the share of attempts with a deliberate mishap; an attempt fails after ``max_steps``, by
    default three times the steps that the expert needs.
    """

    env: str
    options: dict[str, Any] = field(default_factory=dict)
    speed: float = DEFAULT_SPEED_M_S
    mishaps: float = 0.0
    max_steps: int = 200


class Recorder:
    """Runs the expert on seeds in one environment and stages the recorded episodes.

    An observation and the command that follows it have the same timestamp, ``i / fps``; the last
    observation has no command. ``robot_commands.pose`` is the expert's command. With
    ``command_noise`` the executed command differs, which leads to states that a perfect run never
    visits, with the expert's corrections recorded there (Laskey et al., 2017): the noise is in the
    states, not in the commands.
    """

    def __init__(self, scenario: Scenario, writer: "DatasetWriter") -> None:
        """Open the scenario's environment; episodes are staged in the writer's root."""
        self._env = simulator.make(
            scenario.env, max_episode_steps=scenario.max_steps, **scenario.options
        )
        self._inner = cast("PandaEnv", self._env.unwrapped)
        self._expert: Expert = make_expert(self._env, scenario.speed)
        self._statics = {**self._inner.statics, "recording.expert_speed": scenario.speed}
        self._mishaps = scenario.mishaps
        self._writer = writer

    def attempt(self, seed: int, keep_failure: bool = False) -> Attempt:
        """Run the expert on one seed; stage the episode on success, or with ``keep_failure``."""
        with self._writer.new_episode() as episode:
            success, steps = self._play(seed, episode)
            if not (success or keep_failure):
                episode.abort()
                return Attempt(seed, success, steps, None)
            for name, value in self._statics.items():
                episode.set_static(name, value)
            episode.set_static("simulation.seed", seed)
            episode.set_static("eval.success", success)
            return Attempt(seed, success, steps, episode.stage())

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _play(self, seed: int, episode: "EpisodeWriter") -> tuple[bool, int]:
        observation, info = self._env.reset(seed=seed)
        mishaps = Mishaps(self._mishaps, seed)
        steps, over = 0, False
        while True:
            now = (steps * 10**9) // int(self._inner.control_fps)
            for name, value in observation.items():
                episode.append(name, value, now)
            episode.append(SIM_STATE, self._inner.sim_state(), now)
            if over:
                if mishaps.begun is not None:
                    episode.set_static("recording.mishap", mishaps.begun.kind)
                return bool(info["is_success"]), steps
            action = self._expert.act(observation)
            episode.append("robot_commands.pose", action[:7], now)
            episode.append("target_grip", float(action[7]), now)
            executed = mishaps.execute(action, observation)
            observation, _, terminated, truncated, info = self._env.step(executed)
            over = terminated or truncated
            steps += 1
