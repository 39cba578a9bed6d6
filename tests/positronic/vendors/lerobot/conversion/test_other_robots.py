"""Recordings of robots unlike the simulator's: converted with the flags that a refusal names."""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from positronic import cli
from positronic.codec import Contract
from positronic.dataset import DatasetWriter, LocalDataset
from positronic.errors import DatasetError
from positronic.vendors.lerobot import codecs
from positronic.vendors.lerobot.conversion.append import append_dataset
from positronic.vendors.lerobot.conversion.fitting import fitting_flags
from positronic.vendors.lerobot.conversion.pipeline import Options, convert_dataset
from positronic.vendors.lerobot.convert import COMMANDS, prepare
from tests.positronic.vendors.lerobot.raw import picture, pose

FPS = 30
PROG = "positronic-to-lerobot"


def record(
    root: Path,
    numbers: dict[str, int],
    cameras: dict[str, tuple[int, int]] | None = None,
    steps: int = 8,
    statics: dict[str, Any] | None = None,
) -> None:
    """An episode of numeric signals by their sizes (0 for a scalar), and of images by theirs."""
    rng = np.random.default_rng(len(numbers))
    with DatasetWriter(root).new_episode() as episode:
        episode.set_static("task", "fold the cloth")
        for name, value in (statics or {}).items():
            episode.set_static(name, value)
        for step in range(steps):
            time = 1_700_000_000 * 10**9 + step * 10**9 // FPS
            for name, size in numbers.items():
                if name.endswith("pose"):
                    episode.append(name, pose(rng), time)
                else:
                    episode.append(name, rng.uniform(0, 1, size or None), time)
            for index, (name, shape) in enumerate((cameras or {}).items()):
                episode.append(name, picture(0, step, index, shape), time)


SIX = {"robot_state.q": 6, "robot_commands.joints": 6}
TWO = {
    f"{arm}{name}": size
    for arm in ("left.", "right.")
    for name, size in {**SIX, "robot_state.q": 7, "robot_commands.joints": 7}.items()
}
GRIPS = {f"{arm}{name}": 0 for arm in ("left.", "right.") for name in ("grip", "target_grip")}
POSES = {"robot_state.ee_pose": 7, "robot_commands.pose": 7, "target_grip": 0}
FRONT_TOP = {"image.front": (48, 64), "image.top": (96, 96)}
FOUR = {f"camera{i}.image" if i < 2 else f"image.view{i}": (32, 40 + 8 * i) for i in range(4)}

ROBOTS = {
    "six joints, the last the gripper, two cameras": (
        SIX,
        FRONT_TOP,
        "--dataset.codec=.joints --dataset.codec.cameras=front:image.front,top:image.top"
        " --dataset.codec.state=robot_state.q --dataset.codec.grip=None",
        (6,),
    ),
    "fourteen joints and a grip, no camera": (
        {"robot_state.q": 14, "robot_command.joints": 14, "grip": 0, "target_grip": 0},
        {},
        "--dataset.codec=.joints_state",
        (15,),
    ),
    "as LeRobot names them": (
        {"observation.state": 5, "action": 5},
        {"observation.images.up": (64, 48)},
        "--dataset.codec=.joints --dataset.codec.cameras=up:observation.images.up"
        " --dataset.codec.state=observation.state --dataset.codec.command=action"
        " --dataset.codec.grip=None",
        (5,),
    ),
    "two arms and four cameras": (
        TWO | GRIPS,
        FOUR,
        "--dataset.codec=.bimanual_joints --dataset.codec.cameras=camera0_image:camera0.image,"
        "camera1_image:camera1.image,view2:image.view2,view3:image.view3",
        (16,),
    ),
    "two arms of other names, their poses": (
        {f"{arm}.{name}": size for arm in ("a", "b") for name, size in POSES.items()},
        {},
        "--dataset.codec=.bimanual_eepose --dataset.codec.arms=a.,b."
        " --dataset.codec.state=robot_state.ee_pose --dataset.codec.cameras=none",
        (16,),
    ),
    "a pose without a grip of its own": (
        POSES,
        {"image.scene": (40, 40)},
        "--dataset.codec=.eepose_absolute --dataset.codec.cameras=scene:image.scene"
        " --dataset.codec.state=robot_state.ee_pose",
        (8,),
    ),
    "nothing that commands": ({"robot_state.q": 6, "grip": 0}, FRONT_TOP, "", ()),
}


@pytest.mark.parametrize("robot", ROBOTS)
def test_a_refusal_names_flags_that_convert(
    robot: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers, cameras, flags, size = ROBOTS[robot]
    raw = tmp_path / "raw"
    record(raw, numbers, cameras)
    assert sorted(shlex.split(fitting_flags(LocalDataset(raw)[0]))) == sorted(shlex.split(flags))
    words = ["convert", f"--dataset.dataset={raw}", f"--fps={FPS}", "--workers=0"]
    words += [f"--output_dir={tmp_path / 'out'}"]
    # Any codec that does not fit leads to the one that does.
    assert cli.status(COMMANDS, PROG, [*words, "--codec=.eepose_state"], prepare=prepare) == 1
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1
    if not flags:
        assert "record them, or write a codec of your own" in error
        return
    found = re.search(r"choose (--\S*codec.*), which fits", error)
    assert found is not None, error
    given = shlex.split(found[1])
    assert cli.status(COMMANDS, PROG, [*words, *given], prepare=prepare) == 0
    said = capsys.readouterr()
    contract = Contract.load(tmp_path / "out/meta")
    assert tuple(contract.features["action"]["shape"]) == size
    assert ("numbers per sample, from" in said.err) == ("joints" in flags)
    seen = {name: shape for name, shape in contract.features.items() if "images" in name}
    assert len(seen) == len(cameras)
    check(LocalDataset(raw), tmp_path / "out", contract)


def check(raw: LocalDataset, root: Path, contract: Contract) -> None:
    """Each row decodes to the recorded commands."""
    from lerobot.datasets import LeRobotDataset

    dataset, codec = LeRobotDataset("local", root=root, video_backend="pyav"), contract.make_codec()
    recorded = {**raw[0].signals}
    recorded |= {name.replace("command.", "commands."): s for name, s in recorded.items()}
    assert len(dataset) == len(recorded[codec.action_inputs[0]])
    for index in (0, 5):
        command = codec.decode(dataset[index]["action"].numpy())
        for name in codec.action_inputs:
            wanted = np.asarray(recorded[name].values()[index], np.float32)
            arm = next((arm for arm in ("left.", "right.", "a.", "b.") if name.startswith(arm)), "")
            if name.endswith("target_grip"):
                assert command[f"{arm}target_grip"] == wanted
            elif name.endswith("pose"):
                sent = command[f"{arm}robot_command"]["pose"]
                np.testing.assert_array_equal(sent[:3], wanted[:3])
            else:
                np.testing.assert_array_equal(command[f"{arm}robot_command"]["positions"], wanted)


def test_a_recording_of_another_size_is_left_out_and_append_knows_the_sizes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    record(raw, {"robot_state.dq": 6})
    for joints in (6, 7, 6):
        record(raw, {"robot_state.q": joints, "robot_commands.joints": joints})
    codec = codecs.joints_state(state=["robot_state.q"], grip=None)
    report = convert_dataset(LocalDataset(raw), codec, out, FPS, Options(workers=0))
    assert report.episodes == 2
    said = capsys.readouterr().err
    assert re.search(r"numbers per sample, from .*1: robot_state\.q 6, robot_commands", said)
    ((_, _), (source, reason)) = report.refused
    assert source.endswith("2")
    assert "has shape (7,), expected 6 numbers" in reason
    record(tmp_path / "more", {"robot_state.q": 6, "robot_commands.joints": 6}, steps=5)
    more = append_dataset(LocalDataset(tmp_path / "more"), codec, out, Options(workers=0))
    assert more.episodes == 1
    record(tmp_path / "other", {"robot_state.q": 7, "robot_commands.joints": 7})
    with pytest.raises(DatasetError, match=r"has shape \(7,\), expected 6"):
        append_dataset(LocalDataset(tmp_path / "other"), codec, out, Options(workers=0))


def test_pictures_are_no_numbers(tmp_path: Path) -> None:
    record(tmp_path / "raw", SIX, {"image.front": (48, 64)})
    codec = codecs.joints_state(state=["image.front"], grip=None)
    with pytest.raises(DatasetError, match=r"image\.front|sizes of"):
        convert_dataset(LocalDataset(tmp_path / "raw"), codec, tmp_path / "out", FPS)
    assert not (tmp_path / "out").exists()


def test_the_grips_of_two_arms_follow_the_recordings_convention(tmp_path: Path) -> None:
    statics = {"grip_convention": {"open": 0.0, "closed": 1.0}}
    record(tmp_path / "raw", TWO | GRIPS, statics=statics)
    codec = codecs.bimanual_joints(cameras=None)
    convert_dataset(
        LocalDataset(tmp_path / "raw"), codec, tmp_path / "out", FPS, Options(workers=0)
    )
    from lerobot.datasets import LeRobotDataset

    row = LeRobotDataset("local", root=tmp_path / "out")[3]
    recorded = LocalDataset(tmp_path / "raw")[0]["right.target_grip"].values()[3]
    assert float(row["action"][15]) == pytest.approx(1 - float(recorded), abs=1e-6)
