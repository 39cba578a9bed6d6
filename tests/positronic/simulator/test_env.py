"""The environments as Gymnasium, policies and recordings see them."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from numpy.typing import NDArray

from foundation.errors import MissingDependency, UsageError
from positronic import cli, data_collection, simulator
from positronic.errors import SimulationError
from positronic.geom import pose_to_wire
from positronic.inference.command import COMMANDS
from positronic.simulator import gl, robot
from positronic.simulator.tasks import TASKS

ENVS = list(simulator.ENVIRONMENTS)


@pytest.fixture(scope="module", params=ENVS)
def env(request: pytest.FixtureRequest) -> Iterator[Any]:
    opened = simulator.make(request.param, cameras=None)
    yield opened
    opened.close()


def roll(env: Any, seed: int, steps: int = 25, beside: Any = None) -> list[NDArray[np.float64]]:
    """Wave the arm about over the objects, and return all states on the way."""
    observation, _ = env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    states = [env.unwrapped.sim_state()]
    for _ in range(steps):
        action = np.append(observation["robot_state.ee_pose"], rng.uniform())
        action[:3] += rng.normal([0.01, -0.01, -0.02], 0.03)
        observation = env.step(action)[0]
        states.append(env.unwrapped.sim_state())
        if beside is not None:
            beside.step(beside.action_space.sample())
    return states


@pytest.mark.parametrize("name", ENVS)
def test_passes_gymnasiums_checker(name: str) -> None:
    env = gymnasium.make(simulator.env_id(name), image_size=(48, 64), render_mode="rgb_array")
    check_env(env.unwrapped)  # warnings are errors here
    env.close()


def test_pictures_have_the_size_asked_for_and_show_the_cubes() -> None:
    env: Any = simulator.make(
        "stack_cubes",
        cameras=["image.wrist", "image.exterior", "image.agent_view"],
        image_size=(64, 96),
        render_mode="rgb_array",
    )
    for seed in range(4):
        observation, _ = env.reset(seed=seed)
        for name in env.unwrapped.cameras:
            assert observation[name].shape == (64, 96, 3)
            assert observation[name].dtype == np.uint8
        picture = observation["image.exterior"].astype(int)
        red = (picture[..., 0] > 2 * picture[..., 1]) & (picture[..., 0] > 90)
        green = (picture[..., 1] > 1.5 * picture[..., 0]) & (picture[..., 1] > 60)
        assert red.sum() > 10
        assert green.sum() > 10
    assert env.render().shape == (480, 640, 3)
    env.close()
    env.close()


def test_same_seed_same_trajectory_to_the_bit(env: Any) -> None:
    other = simulator.make("stack_cubes", cameras=None)
    other.reset(seed=99)
    first = roll(env, seed=3)
    again = roll(env, seed=3, beside=other)
    fresh = roll(simulator.make(env.unwrapped.task_name, cameras=None), seed=3)
    other.close()
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, fresh)
    assert not np.array_equal(first[0], roll(env, seed=4, steps=0)[0])


def test_a_saved_state_continues_as_the_original_did(env: Any) -> None:
    observation, _ = env.reset(seed=5)
    action = np.append(observation["robot_state.ee_pose"], 0.0)
    action[2] -= 0.05
    for _ in range(5):
        env.step(action)
    saved = env.unwrapped.sim_state()
    expected = [env.step(action)[0]["robot_state.q"] for _ in range(5)]
    env.reset(seed=6)
    env.unwrapped.set_sim_state(saved)
    np.testing.assert_array_equal(
        [env.step(action)[0]["robot_state.q"] for _ in range(5)], expected
    )
    with pytest.raises(SimulationError, match="numbers"):
        env.unwrapped.set_sim_state(saved[:-1])


def test_objects_start_apart_and_at_rest(env: Any) -> None:
    starts = []
    for seed in range(40):
        observation, _ = env.reset(seed=seed)
        first, second = observation["object_poses"].reshape(2, 7)
        assert np.linalg.norm(first[:2] - second[:2]) > 0.095
        before = observation["object_poses"]
        hold = np.append(observation["robot_state.ee_pose"], 1.0)
        for _ in range(3):
            observation = env.step(hold)[0]
        np.testing.assert_allclose(observation["object_poses"], before, atol=1e-4)
        starts.append(first)
    assert np.ptp([start[0] for start in starts]) > 0.1


def test_the_gripper_goes_where_it_is_told_without_sign_flips(env: Any) -> None:
    observation, _ = env.reset(seed=0)
    previous = observation["robot_state.ee_pose"][3:]
    for x, y, z, heading in [
        (0.5, 0.15, 0.2, 1.2),
        (0.42, -0.15, 0.3, -1.2),
        (0.58, 0.0, 0.1, 0.0),
    ]:
        target = np.array([x, y, z, 0.0, np.cos(heading / 2), np.sin(heading / 2), 0.0])
        for sign in (1.0, -1.0) * 15:  # both quaternions of the rotation mean the same
            action = np.append(target, 1.0)
            action[3:7] *= sign
            observation = env.step(action)[0]
            quat = observation["robot_state.ee_pose"][3:]
            assert quat @ previous > 0.5
            previous = quat
        np.testing.assert_allclose(observation["robot_state.ee_pose"], target, atol=2e-3)


def test_grip_is_one_open_and_zero_closed(env: Any) -> None:
    observation, _ = env.reset(seed=0)
    assert observation["grip"] > 0.98
    hold = observation["robot_state.ee_pose"]
    for grip, low, high in [(0.0, 0.0, 0.03), (1.0, 0.97, 1.0), (0.5, 0.4, 0.6)]:
        for _ in range(45):
            observation = env.step(np.append(hold, grip))[0]
        assert low <= observation["grip"] <= high


@pytest.mark.parametrize("mode", ["cartesian_pos", "joint_pos"])
def test_wire_commands_of_both_kinds_work_in_both_modes(mode: str) -> None:
    env: Any = simulator.make("stack_cubes", cameras=None, control_mode=mode)
    pose = np.array([0.5, 0.1, 0.25, 0.0, np.cos(0.2), np.sin(0.2), 0.0])
    env.reset(seed=0)
    for _ in range(40):
        command = {"type": "cartesian_pos", "pose": pose_to_wire(pose)}
        observation = env.step(env.unwrapped.command_to_action(command, 1.0))[0]
    np.testing.assert_allclose(observation["robot_state.ee_pose"], pose, atol=2e-3)

    joints = observation["robot_state.q"].astype(float) + 0.1
    for _ in range(40):
        command = {"type": "joint_pos", "positions": joints}
        action = env.unwrapped.command_to_action(command, 0.0)
        observation = env.step(action)[0]
    reached, _ = env.unwrapped._arm.kinematics.forward(observation["robot_state.q"])
    expected, _ = env.unwrapped._arm.kinematics.forward(joints)
    np.testing.assert_allclose(reached, expected, atol=2e-3)
    assert action[7] == 0.0

    command, grip = env.unwrapped.action_to_command(action)
    np.testing.assert_allclose(env.unwrapped.command_to_action(command, grip), action, atol=1e-9)
    env.close()


@pytest.mark.parametrize(
    "command",
    [
        {"type": "cartesian_vel", "pose": np.zeros(12)},
        {"type": "cartesian_pos", "pose": np.zeros(7)},
        {"type": "cartesian_pos"},
        {"type": "joint_pos", "positions": np.full(7, np.nan)},
    ],
)
def test_bad_wire_commands_are_named(env: Any, command: dict[str, Any]) -> None:
    with pytest.raises(SimulationError, match="command"):
        env.unwrapped.command_to_action(command, 1.0)


@pytest.mark.parametrize("action", [np.zeros(7), np.full(8, np.nan), np.zeros(8)])
def test_bad_actions_are_refused(env: Any, action: NDArray[np.float64]) -> None:
    env.reset(seed=0)
    with pytest.raises(SimulationError):
        env.step(action)


def test_absurd_targets_neither_fail_nor_explode(env: Any) -> None:
    env.reset(seed=0)
    for _ in range(20):
        far = np.array([5.0, -5.0, -5.0, 0.0, 1.0, 0.0, 0.0, 1.0])
        observation = env.step(far)[0]
        assert np.abs(observation["robot_state.dq"]).max() < 10
        assert observation in env.observation_space


@pytest.mark.parametrize(
    "options",
    [
        {"cameras": ["image.front"]},
        {"image_size": (0, 10)},
        {"image_size": (64,)},
        {"control_mode": "velocity"},
        {"control_fps": 0},
        {"command_noise": -1.0},
        {"render_mode": "human"},
    ],
)
def test_arguments_that_make_no_sense(options: dict[str, Any]) -> None:
    from positronic.simulator.env import PandaEnv

    with pytest.raises(UsageError, match="expected"):
        PandaEnv(**options)


def test_a_short_name_may_begin_with_a_dot_like_those_of_codecs() -> None:
    assert simulator.env_id(".stack_cubes") == simulator.env_id("stack_cubes")
    with pytest.raises(UsageError, match="did you mean"):
        simulator.env_id(".stack_cube")


def test_unknown_environments_get_a_suggestion() -> None:
    with pytest.raises(UsageError, match="did you mean 'stack_cubes'"):
        simulator.make("stack_cube")


def test_each_environment_has_a_task_and_is_named_where_people_look(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert simulator.ENVIRONMENTS.keys() == TASKS.keys()
    recording = {"scripted": data_collection.scripted}
    for command, words in ((recording, ["scripted"]), (COMMANDS, ["sim"]), (COMMANDS, ["compare"])):
        assert cli.status(command, "program", [*words, "--help"]) == 0
        said = capsys.readouterr().out
        assert [name for name in TASKS if name not in said] == [], words
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    assert [name for name in simulator.ENVIRONMENTS.values() if f"`{name}`" not in readme] == []


def test_statics_name_what_was_recorded(env: Any) -> None:
    statics = env.unwrapped.statics
    assert statics["task"] == env.unwrapped.task
    assert statics["simulation.env_id"] == simulator.env_id(env.unwrapped.task_name)
    observation, _ = env.reset(seed=0)
    assert observation["object_poses"].size == 7 * len(statics["object_names"])


def test_an_unclosed_environment_is_silent_at_exit() -> None:
    code = (
        "from positronic import simulator\n"
        "envs = [simulator.make('stack_cubes', image_size=(16, 16)) for _ in range(2)]\n"
        "[env.reset(seed=0) for env in envs]\n"
        "envs[0].close()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_backend_keeps_the_users_choice_and_prefers_egl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gl, "is_available", lambda name: True)
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert gl.select_backend() == "osmesa"
    monkeypatch.delenv("MUJOCO_GL")
    assert gl.select_backend() == "egl"
    monkeypatch.delenv("MUJOCO_GL")
    monkeypatch.setattr(gl, "is_available", lambda name: name == "osmesa")
    assert gl.select_backend() == "osmesa"


def test_without_rendering_libraries_only_pictures_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(gl, "_loads", lambda name: False)
    assert gl.select_backend(required=False) == "disable"
    with pytest.raises(MissingDependency, match="apt-get install .*libegl1"):
        gl.select_backend()


def test_without_the_robot_wheel_the_message_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_files(name: str) -> list[Path]:
        return []

    monkeypatch.setattr("importlib.metadata.files", no_files)
    with pytest.raises(MissingDependency, match="pip install --no-deps gym-hil"):
        robot.model_path()
