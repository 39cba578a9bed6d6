from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from positronic.dataset import DatasetWriter, DiskEpisode, Episode
from positronic.dataset.conventions import OPEN_1, adapted
from positronic.errors import EpisodeError
from positronic.geom import normalize_quat, pose_to_wire
from positronic.simulator import gl

POSE, COMMAND, OUR_COMMAND = "robot_state.ee_pose", "robot_command.pose", "robot_commands.pose"
INERTIA = (
    '<inertial><mass value="1"/>'
    '<inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial>'
)
JOINTS = [
    ("base", "arm", "revolute", "0.1 0 0.3", "0.2 0 0"),
    ("arm", "flange", "fixed", "0 0 0.107", "0.3 -0.4 0.5"),
    ("flange", "gripper", "fixed", "0 0.01 0.10365", "0 0 1.2"),
    ("flange", "hand", "fixed", "0 0 0", "-0.1 0.6 -0.785"),
    ("hand", "end_effector", "fixed", "0.02 0 0.0584", "0 0.2 0"),
    ("hand", "finger", "prismatic", "0 0.04 0.0584", "0 0 0"),
]
RNG = np.random.default_rng(0)
OFFSET = [0.01, -0.02, 0.03, *normalize_quat(RNG.normal(size=4)).tolist()]


def urdf(joints: Sequence[tuple[str, ...]] = JOINTS) -> str:
    links = sorted({name for joint in joints for name in joint[:2]})
    words = [f'<link name="{name}">{INERTIA}</link>' for name in links]
    for parent, child, kind, xyz, rpy in joints:
        more = '<axis xyz="0 0 1"/><limit lower="-1" upper="1" effort="1" velocity="1"/>'
        words.append(
            f'<joint name="{parent}_{child}" type="{kind}"><origin xyz="{xyz}" rpy="{rpy}"/>'
            f'<parent link="{parent}"/><child link="{child}"/>'
            f"{more if kind != 'fixed' else ''}</joint>"
        )
    return f'<robot name="r">{"".join(words)}</robot>'


def recorded(root: Path, dtype: Any = np.float64, **static: Any) -> Episode:
    poses = RNG.normal(size=(5, 7))
    poses[:, 3:] = normalize_quat(poses[:, 3:])
    with DatasetWriter(root).new_episode() as writer:
        for i, pose in enumerate(poses):
            writer.append(POSE, pose.astype(dtype), i)
            writer.append(COMMAND, pose.astype(dtype), i)
            writer.append("grip", 0.5, i)
        for name, value in static.items():
            writer.set_static(name, value)
    return DiskEpisode(writer.path)


def matrices(poses: Any) -> NDArray[np.float64]:
    """Homogeneous matrices ``(n, 4, 4)``."""
    wire = pose_to_wire(poses)
    found = np.tile(np.eye(4), (len(wire), 1, 1))
    found[:, :3, :3], found[:, :3, 3] = wire[:, 3:].reshape(-1, 3, 3), wire[:, :3]
    return found


def by_mujoco(model: str, link: str) -> NDArray[np.float64]:
    """Where MuJoCo puts a link, as a homogeneous matrix."""
    # Its import settles what this process renders with.
    gl.select_backend(required=False)
    import mujoco

    # Otherwise it makes one body of links that cannot move against each other.
    kept = model.replace("<link", '<mujoco><compiler fusestatic="false"/></mujoco><link', 1)
    physics = mujoco.MjModel.from_xml_string(kept)
    data = mujoco.MjData(physics)
    mujoco.mj_forward(physics, data)
    found = np.eye(4)
    found[:3, :3], found[:3, 3] = data.body(link).xmat.reshape(3, 3), data.body(link).xpos
    return found


def frames(**entry: Any) -> dict[str, Any]:
    return {POSE: {"site": "gripper", **entry}, COMMAND: {"site": "gripper", **entry}}


@pytest.mark.parametrize("offset", [None, OFFSET])
def test_poses_are_moved_to_where_the_model_has_its_end_effector(
    tmp_path: Path, offset: list[float] | None
) -> None:
    stated = frames(**({} if offset is None else {"offset": offset}))
    episode = recorded(tmp_path, urdf=urdf(), ee_frames=stated)
    found = adapted(episode, [POSE, OUR_COMMAND], OPEN_1)
    way = np.linalg.inv(by_mujoco(urdf(), "gripper")) @ by_mujoco(urdf(), "end_effector")
    if offset is not None:
        way = np.linalg.inv(matrices([offset])[0]) @ way
    for ours, theirs in ((POSE, POSE), (COMMAND, COMMAND), (OUR_COMMAND, COMMAND)):
        wanted = matrices(episode[theirs].values()) @ way
        np.testing.assert_allclose(matrices(found[ours].values()), wanted, atol=1e-9)
    assert np.abs(way - np.eye(4)).max() > 0.01
    assert found["ee_frames"][POSE] == {"site": "end_effector", "offset": [0, 0, 0, 1, 0, 0, 0]}
    assert adapted(found, [POSE, COMMAND], OPEN_1) is found
    assert adapted(episode, ["grip"], OPEN_1) is episode


def test_what_is_at_that_point_or_states_none_is_left(tmp_path: Path) -> None:
    there = {POSE: {"site": "end_effector"}}
    statics: list[dict[str, Any]] = [
        {"urdf": urdf(), "ee_frames": there},
        {"urdf": urdf()},
        {"ee_frames": {}},
    ]
    for static in statics:
        episode = recorded(tmp_path, **static)
        assert adapted(episode, [POSE], OPEN_1) is episode


def test_a_model_without_an_end_effector_has_its_own_point(tmp_path: Path) -> None:
    for model in (urdf(JOINTS[:3]), "<mujoco><worldbody/></mujoco>"):
        still = recorded(tmp_path, urdf=model, ee_frames=frames())
        assert adapted(still, [POSE], None) is still
        episode = recorded(tmp_path, urdf=model, ee_frames=frames(offset=OFFSET))
        found = adapted(episode, [POSE], None)[POSE].values()
        wanted = matrices(episode[POSE].values()) @ np.linalg.inv(matrices([OFFSET])[0])
        np.testing.assert_allclose(matrices(found), wanted, atol=1e-9)


def test_numbers_stay_of_their_type(tmp_path: Path) -> None:
    episode = recorded(tmp_path, np.float32, urdf=urdf(), ee_frames=frames())
    found = adapted(episode, [POSE], None)[POSE]
    assert found.values().dtype == np.float32
    assert found.timestamps().tolist() == [0, 1, 2, 3, 4]


MOVES = [*JOINTS[:3], ("gripper", "end_effector", "prismatic", "0 0 0", "0 0 0")]
CIRCLE = [("gripper", "end_effector", "fixed", "0 0 0", "0 0 0")]
CIRCLE += [("end_effector", "gripper", "fixed", "0 0 1", "0 0 0")]


@pytest.mark.parametrize(
    ("static", "words"),
    [
        ({"ee_frames": frames()}, "no static 'urdf'"),
        ({"ee_frames": frames(), "urdf": "<robot"}, "'urdf' is not a valid URDF"),
        (
            {"ee_frames": frames(), "urdf": urdf(JOINTS).replace("0 0 0.107", "0 0")},
            "not a valid URDF",
        ),
        ({"ee_frames": frames(), "urdf": urdf(MOVES)}, "joints that move between 'gripper'"),
        (
            {"ee_frames": frames(), "urdf": urdf(JOINTS).replace("gripper", "x")},
            "no link 'gripper'",
        ),
        ({"ee_frames": "gripper", "urdf": urdf()}, "'ee_frames' is 'gripper', expected"),
        ({"ee_frames": {POSE: {"point": 1}}, "urdf": urdf()}, "expected for each pose signal"),
        ({"ee_frames": frames(offset=[0, 0, 0]), "urdf": urdf()}, "expected for each"),
        ({"ee_frames": frames(offset=[0.0] * 7), "urdf": urdf()}, "expected for each"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, static: dict[str, Any], words: str) -> None:
    with pytest.raises(EpisodeError, match=words):
        adapted(recorded(tmp_path, **static), [POSE], None)


def test_a_model_that_goes_in_circles_ends(tmp_path: Path) -> None:
    with pytest.raises(EpisodeError, match="joints that move"):
        adapted(recorded(tmp_path, urdf=urdf(CIRCLE), ee_frames=frames()), [POSE], None)
