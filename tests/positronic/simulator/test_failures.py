"""Each way to fail, done for real: by an expert that goes wrong at one point."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from positronic import simulator
from positronic.simulator.expert import make_expert

Array = NDArray[np.float64]
Observation = dict[str, Any]
# Changes the expert's command; None stops the arm for the rest, with the command before.
Change = Callable[[Array, Observation], Array | None]
BOTH = pytest.mark.parametrize("task", simulator.ENVIRONMENTS)


def to_goal(seen: Observation) -> float:
    cube, place = seen["object_poses"].reshape(-1, 7)
    return float(np.hypot(*(cube[:2] - place[:2])))


def height(seen: Observation) -> float:
    return float(seen["object_poses"][2])


def fail(task: str, change: Change, *, seed: int = 3, beside_m: float = 0.0) -> str | None:
    """Let the expert go wrong for ten seconds; it sees the place ``beside_m`` off. The cause."""
    env: Any = simulator.make(task, cameras=None)
    expert, (seen, info) = make_expert(env), env.reset(seed=seed)
    assert info["failure_cause"] == "never_grasped"
    stopped: Array | None = None
    for _ in range(150):
        believed = {**seen, "object_poses": seen["object_poses"].copy()}
        believed["object_poses"][8] += beside_m
        command = expert.act(believed)
        changed = change(command, seen) if stopped is None else None
        if changed is None and stopped is None:
            stopped = np.append(seen["robot_state.ee_pose"], 1.0)
        seen, _, terminated, _, info = env.step(stopped if changed is None else changed)
        assert not terminated
        assert not info["is_success"]
    env.close()
    return info["failure_cause"]  # type: ignore[no-any-return]


@BOTH
def test_a_hand_that_never_closes_never_grasps(task: str) -> None:
    assert fail(task, lambda command, seen: np.append(command[:7], 1.0)) == "never_grasped"


@BOTH
def test_pushing_is_not_grasping(task: str) -> None:
    """Closed fingers at the height of the cube, straight through where it lies."""
    cubes = []

    def push(command: Array, seen: Observation) -> Array:
        tcp, cube = seen["robot_state.ee_pose"], seen["object_poses"][:3]
        cubes.append(cube)
        low = tcp[2] < 0.03
        goal = cube + np.array([0.0, 0.05 if low else -0.08, 0.0])
        step = np.clip(goal - tcp[:3], -0.02, 0.02)
        return np.concatenate([tcp[:3] + step, tcp[3:], [0.0]])

    assert fail(task, push) == "never_grasped"
    assert cubes[-1][1] - cubes[0][1] > 0.05


@BOTH
def test_a_cube_let_go_on_the_way_is_dropped(task: str) -> None:
    def let_go(command: Array, seen: Observation) -> Array | None:
        return None if height(seen) > 0.06 and to_goal(seen) > 0.09 else command

    assert fail(task, let_go) == "dropped"


def test_a_cube_let_go_high_above_its_place_is_dropped() -> None:
    def let_go(command: Array, seen: Observation) -> Array | None:
        return None if height(seen) > 0.12 and to_goal(seen) < 0.06 else command

    assert fail("stack_cubes", let_go) == "dropped"


@BOTH
def test_a_cube_released_beside_its_place_misses_it(task: str) -> None:
    def stop(command: Array, seen: Observation) -> Array | None:
        return (
            None if command[7] == 1.0 and to_goal(seen) < 0.12 and height(seen) < 0.07 else command
        )

    beside_m = {"stack_cubes": 0.05, "pick_place": -0.1}[task]
    assert fail(task, stop, beside_m=beside_m) == "missed"


def test_a_stack_that_is_pushed_over_has_toppled() -> None:
    begun: list[Observation] = []

    def push(command: Array, seen: Observation) -> Array:
        if begun or (seen["grip"] > 0.76 and height(seen) > 0.05):
            begun.append(seen)
        if not begun:
            return command
        aside = begun[0]["robot_state.ee_pose"].copy()
        aside[1] += min(0.012 * len(begun), 0.1)
        return np.append(aside, 1.0)

    assert fail("stack_cubes", push) == "toppled"
    green = begun[-1]["object_poses"][7:]
    assert 1 - 2 * (green[4] ** 2 + green[5] ** 2) < 0.1  # it lies on its side


def test_a_cube_that_is_struck_off_its_place_has_toppled() -> None:
    env: Any = simulator.make("stack_cubes", cameras=None)
    expert, (seen, info) = make_expert(env), env.reset(seed=3)
    while seen["grip"] < 0.76 or height(seen) < 0.05:
        seen, *_, info = env.step(expert.act(seen))
    assert info["failure_cause"] is None
    stay = np.append(seen["robot_state.ee_pose"], 1.0)
    inner = env.unwrapped
    for _ in range(20):
        if height(seen) > 0.05:
            inner.data.qvel[inner._object_dofs[0]] = 0.5
        seen, *_, info = env.step(stay)
    red, green = seen["object_poses"].reshape(-1, 7)
    assert red[2] < 0.03
    assert 1 - 2 * (green[4] ** 2 + green[5] ** 2) > 0.9  # it stands as before
    assert info["failure_cause"] == "toppled"


@BOTH
def test_a_place_that_fell_over_has_toppled(task: str) -> None:
    env: Any = simulator.make(task, cameras=None)
    seen, info = env.reset(seed=3)
    inner = env.unwrapped
    at = inner._object_qpos[1]
    inner.data.qpos[at + 2] += 0.1
    inner.data.qpos[at + 3 : at + 7] = np.sqrt(0.5), np.sqrt(0.5), 0, 0
    for _ in range(15):
        *_, info = env.step(np.append(seen["robot_state.ee_pose"], 1.0))
    assert info["failure_cause"] == "toppled"


@BOTH
def test_time_alone_is_no_cause(task: str) -> None:
    """A cube that is held to the end was neither dropped nor misplaced."""

    def hold(command: Array, seen: Observation) -> Array:
        return np.append(seen["robot_state.ee_pose"], 0.0) if height(seen) > 0.08 else command

    assert fail(task, hold) is None


def test_a_second_try_is_what_counts() -> None:
    """Dropped once, and then picked up again."""
    tries = [0]

    def once(command: Array, seen: Observation) -> Array:
        if height(seen) > 0.1 and tries[0] < 6:
            tries[0] += 1
            return np.append(seen["robot_state.ee_pose"], 1.0)
        return np.append(command[:7], 0.0) if tries[0] == 6 and height(seen) > 0.05 else command

    assert fail("stack_cubes", once) is None


def test_a_solved_task_has_no_cause() -> None:
    env: Any = simulator.make("stack_cubes", cameras=None)
    expert, (seen, info) = make_expert(env), env.reset(seed=3)
    while not info["is_success"]:
        seen, *_, info = env.step(expert.act(seen))
    assert info["failure_cause"] is None
    _, info = env.reset(seed=3)
    assert info["failure_cause"] == "never_grasped"
