"""When a task counts as done, and where its objects start."""

import dataclasses

import numpy as np
import pytest

from positronic.geom import quat_from_yaw
from positronic.simulator.tasks import TASKS, PickPlace, SceneState, StackCubes, Task


def scene(*poses: tuple[float, float, float], yaw: float = 0.3) -> SceneState:
    return SceneState(
        tcp=np.array([0.5, 0.0, 0.2]),
        grip=0.95,
        poses=np.stack([np.append(xyz, quat_from_yaw(yaw)) for xyz in poses]),
        velocities=np.zeros((len(poses), 3)),
    )


STACKED = scene((0.5, 0.01, 0.06), (0.5, 0.0, 0.02))
IN_TRAY = scene((0.52, 0.12, 0.024), (0.5, 0.1, 0.0))
DONE = [
    pytest.param(StackCubes(), STACKED, id="stack"),
    pytest.param(PickPlace(), IN_TRAY, id="pick"),
]


@pytest.mark.parametrize(("task", "state"), DONE)
def test_done(task: Task, state: SceneState) -> None:
    assert task.is_done(state)


@pytest.mark.parametrize(("task", "state"), DONE)
def test_not_done_before_the_gripper_is_open_and_away(task: Task, state: SceneState) -> None:
    assert not task.is_done(dataclasses.replace(state, grip=0.5))
    near = state.poses[0, :3] + [0, 0, 0.02]
    assert not task.is_done(dataclasses.replace(state, tcp=near))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("task", "state"), DONE)
def test_not_done_while_anything_moves(task: Task, state: SceneState, axis: int) -> None:
    moving = np.zeros((2, 3))
    moving[0, axis] = 0.05
    assert not task.is_done(dataclasses.replace(state, velocities=moving))


@pytest.mark.parametrize("position", [(0.53, 0.0, 0.06), (0.5, 0.0, 0.08), (0.5, 0.05, 0.02)])
def test_a_cube_beside_or_above_is_not_stacked(position: tuple[float, float, float]) -> None:
    assert not StackCubes().is_done(scene(position, (0.5, 0.0, 0.02)))


def test_a_stack_must_stand_on_the_table() -> None:
    assert not StackCubes().is_done(scene((0.5, 0.0, 0.16), (0.5, 0.0, 0.12)))


@pytest.mark.parametrize("position", [(0.56, 0.1, 0.024), (0.5, 0.1, 0.06), (0.5, 0.25, 0.02)])
def test_a_cube_on_the_rim_or_outside_is_not_in_the_tray(
    position: tuple[float, float, float],
) -> None:
    assert not PickPlace().is_done(scene(position, (0.5, 0.1, 0.0)))


def test_the_tray_is_judged_in_its_own_frame() -> None:
    corner = (0.5 + 0.06, 0.1, 0.024)  # inside along the diagonal, over the rim otherwise
    turned = scene(corner, (0.5, 0.1, 0.0), yaw=np.pi / 4)
    straight = scene(corner, (0.5, 0.1, 0.0), yaw=0.0)
    assert PickPlace().is_done(turned)
    assert not PickPlace().is_done(straight)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_start_poses_use_the_whole_range_of_headings(task: Task) -> None:
    rng = np.random.default_rng(0)
    poses = np.stack([task.sample(rng, 0.5) for _ in range(200)])
    headings = 2 * np.arctan2(poses[..., 6], poses[..., 3])
    assert np.abs(headings).max() <= 0.5
    assert np.ptp(headings) > 0.9
