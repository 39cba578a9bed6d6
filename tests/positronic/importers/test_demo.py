from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from positronic.errors import DatasetError, EpisodeError
from positronic.importers.demo import Demo, Setup, read_demo, read_setup
from tests.positronic.importers.conftest import CONTROLLER, MakeFile

CAMERAS = {"agentview": "image.exterior", "robot0_eye_in_hand": "image.wrist"}


def load(path: Path, name: str = "demo_0", flip_images: bool = False) -> tuple[Setup, Demo]:
    with h5py.File(path) as file:
        setup = read_setup(file, CAMERAS, flip_images)
        return setup, read_demo(file, name, setup)


def test_setup_says_what_the_demos_share(make_file: MakeFile) -> None:
    setup, _ = load(make_file(demos=3))
    assert (setup.env_name, setup.robot, setup.control_fps) == ("Lift", "Panda", 20)
    assert setup.masks == {"train": {"demo_0", "demo_1"}, "valid": {"demo_2"}}
    assert setup.controller is not None


def test_observations_have_the_one_after_the_last_command(make_file: MakeFile) -> None:
    _, demo = load(make_file(steps=6))
    lengths = {name: len(rows) for name, rows in demo.signals.items()}
    for name in ("robot_commands.pose", "target_grip", "robomimic.actions", "robomimic.states"):
        assert lengths.pop(name) == 6
    for name in ("robomimic.rewards", "robomimic.dones"):
        assert lengths.pop(name) == 6
    assert set(lengths.values()) == {7}
    assert set(lengths) >= {"robot_state.q", "robot_state.dq", "robot_state.ee_pose", "grip"}
    assert set(lengths) >= {"image.wrist", "image.exterior", "object_poses", "robomimic.object"}


def test_types_are_those_of_raw_signals(make_file: MakeFile) -> None:
    _, demo = load(make_file())
    assert demo.signals["robot_state.q"].dtype == np.float32
    assert demo.signals["robot_state.ee_pose"].shape == (7, 7)
    assert demo.signals["image.wrist"].shape == (7, 16, 16, 3)
    assert np.allclose(demo.signals["grip"], 0.5)


def test_without_next_obs_observations_end_with_the_commands(make_file: MakeFile) -> None:
    def spoil(file: h5py.File) -> None:
        del file["data/demo_0/next_obs"]

    _, demo = load(make_file(steps=6, spoil=spoil))
    assert {len(rows) for rows in demo.signals.values()} == {6}


def test_objects_of_a_known_environment_become_poses(make_file: MakeFile) -> None:
    _, demo = load(make_file())
    assert np.allclose(demo.signals["object_poses"][0], [0.1, 0.2, 0.3, 0.8, 0, 0, 0.6])
    assert demo.static["object_names"] == ["cube"]
    _, other = load(make_file(env_name="ToolHang"))
    assert "object_poses" not in other.signals
    assert "robomimic.object" in other.signals


def test_images_are_flipped_on_demand_only(make_file: MakeFile) -> None:
    path = make_file()
    upright = load(path)[1].signals["image.wrist"]
    assert np.array_equal(load(path, flip_images=True)[1].signals["image.wrist"], upright[:, ::-1])


def test_statics_say_where_it_came_from_and_which_split(make_file: MakeFile) -> None:
    _, demo = load(make_file(), "demo_1")
    static = demo.static
    assert static["mask.valid"] is True
    assert static["mask.train"] is False
    assert static["robomimic.demo"] == "demo_1"
    assert static["grip_convention"] == {"open": 1.0, "closed": 0.0}
    assert static["control_fps"] == 20
    assert len(static["robomimic.model_sha256"]) == 64


def test_without_a_known_controller_raw_actions_remain(make_file: MakeFile) -> None:
    setup, demo = load(make_file(controller=CONTROLLER | {"type": "JOINT_VELOCITY"}))
    assert "JOINT_VELOCITY" in setup.not_absolute
    assert "robot_commands.pose" not in demo.signals
    assert "robomimic.actions" in demo.signals
    assert demo.static["pose_signals"] == ["robot_state.ee_pose"]


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda f: f.__delitem__("data/demo_0/obs"), "dataset_states_to_obs"),
        (lambda f: f.__delitem__("data/demo_0/actions"), "'actions'"),
        (lambda f: f.__delitem__("data/demo_0/obs/robot0_eef_quat"), "'robot0_eef_quat'"),
        (lambda f: replace(f, "actions", np.zeros((6, 14))), r"expected \(steps, 7\)"),
        (lambda f: replace(f, "actions", np.zeros((0, 7))), "no steps"),
        (lambda f: replace(f, "obs/robot0_eef_pos", np.zeros((4, 3))), "4 rows"),
        (lambda f: replace(f, "obs/robot0_eef_pos", np.full((6, 3), np.nan)), "non-finite"),
        (lambda f: replace(f, "obs/robot0_eef_quat", np.zeros((6, 4))), "length 0"),
        (lambda f: replace(f, "obs/agentview_image", np.zeros((6, 16, 16, 3))), "expected uint8"),
        (lambda f: replace(f, "rewards", np.zeros(2)), "2 rewards for 6 actions"),
    ],
)
def test_a_spoilt_demo_is_named_with_its_fault(
    make_file: MakeFile, spoil: Callable[[h5py.File], None], named: str
) -> None:
    path = make_file(spoil=spoil)
    with pytest.raises(EpisodeError, match=f"demo_0.*{named}"):
        load(path)


def replace(file: h5py.File, key: str, rows: NDArray[Any]) -> None:
    del file[f"data/demo_0/{key}"]
    file[f"data/demo_0/{key}"] = rows


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda f: f.__delitem__("data"), "no group 'data'"),
        (lambda f: f["data"].attrs.__delitem__("env_args"), "env_args"),
        (lambda f: f["data"].attrs.__setitem__("env_args", "{"), "env_args"),
        (lambda f: f["data"].attrs.__setitem__("env_args", "{}"), "env_args"),
    ],
)
def test_a_file_of_another_kind_is_refused(
    make_file: MakeFile, spoil: Callable[[h5py.File], None], named: str
) -> None:
    path = make_file(spoil=spoil)
    with pytest.raises(DatasetError, match=named):
        load(path)


def test_another_simulator_is_refused(make_file: MakeFile) -> None:
    with pytest.raises(DatasetError, match="not a robosuite environment"):
        load(make_file(env_type=2))


def test_real_targets_lead_the_motion(sample_file: Path) -> None:
    """What the arm did next correlates with where the targets point, axis by axis."""
    moved, pointed = [], []
    with h5py.File(sample_file) as file:
        setup = read_setup(file, CAMERAS, False)
        for index in range(10):
            signals = read_demo(file, f"demo_{index}", setup).signals
            poses, targets = signals["robot_state.ee_pose"], signals["robot_commands.pose"]
            moved.append(poses[1:] - poses[:-1])
            pointed.append(targets - poses[:-1])
    motion, aim = np.concatenate(moved), np.concatenate(pointed)
    correlation = [np.corrcoef(motion[:, axis], aim[:, axis])[0, 1] for axis in range(7)]
    # Measured: 0.90 0.76 0.98 for position, 0.96 0.98 0.89 0.93 for the quaternion.
    assert min(correlation) > 0.7


def test_real_images_are_upright(sample_file: Path) -> None:
    _, demo = load(sample_file)
    wrist = demo.signals["image.wrist"].mean(axis=(0, 2, 3))
    exterior = demo.signals["image.exterior"].mean(axis=(0, 2, 3))
    assert wrist[-8:].mean() < 100 < wrist[:40].mean(), "the gripper's dark edge is below"
    assert exterior[:8].mean() < exterior[-8:].mean(), "the white table is below the robot"


def test_real_grip_begins_half_open_and_ends_on_the_cube(sample_file: Path) -> None:
    _, demo = load(sample_file)
    grip, target = demo.signals["grip"], demo.signals["target_grip"]
    assert grip[0] == pytest.approx(0.52, abs=0.01)
    assert grip.max() > 0.98
    assert grip[-1] == pytest.approx(0.52, abs=0.03), "the cube is 4.2 cm wide"
    assert target[0] == 1.0
    assert target[-1] == 0.0
