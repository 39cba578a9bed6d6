"""Joints, several arms, relative targets and representations of rotations: there and back."""

import json
from typing import Any

import numpy as np
import pytest

from positronic.codec import (
    AbsolutePose,
    Arms,
    Codec,
    Contract,
    DeltaPose,
    FlipGrip,
    JointTargets,
    Parallel,
    RelativePose,
    Rename,
    Vector,
    from_spec,
)
from positronic.codec.documents import older_form
from positronic.errors import CodecError
from positronic.geom import normalize_quat, pose_to_wire, quat_mul

ROWS = 40
STATE, COMMAND = "robot_state.ee_pose", "robot_commands.pose"


def turning(seed: int, rows: int = ROWS) -> Any:
    """Poses of an arm that moves, pointing down at first, the signs of quaternions at random."""
    rng = np.random.default_rng(seed)
    axis = rng.normal(size=3) / 2
    half = np.linspace(0, 1.5, rows)[:, np.newaxis] * np.linalg.norm(axis)
    turn = np.concatenate([np.cos(half), np.sin(half) * axis / np.linalg.norm(axis)], axis=-1)
    quats = quat_mul(turn, [0.0, 1.0, 0.0, 0.0]) * rng.choice([-1.0, 1.0], (rows, 1))
    return np.concatenate([np.cumsum(rng.normal(0, 0.01, (rows, 3)), axis=0), quats], axis=-1)


def recorded(rows: int = ROWS) -> dict[str, Any]:
    rng = np.random.default_rng(7)
    columns = {
        "q": rng.normal(size=(rows, 6)).astype(np.float32),
        "arm/cmd": rng.normal(size=(rows, 6)),
        STATE: turning(1, rows),
        COMMAND: turning(2, rows),
        "grip": rng.uniform(size=rows),
        "target_grip": rng.uniform(size=rows),
    }
    for arm, joints in (("left.", 7), ("right.", 5)):
        columns |= {
            f"{arm}robot_state.q": rng.normal(size=(rows, joints)),
            f"{arm}robot_commands.joints": rng.normal(size=(rows, joints)),
            f"{arm}{STATE}": turning(joints, rows),
            f"{arm}{COMMAND}": turning(joints + 1, rows),
            f"{arm}grip": rng.uniform(size=rows),
            f"{arm}target_grip": rng.uniform(size=rows),
        }
    return columns


def row(index: int, columns: dict[str, Any] | None = None) -> dict[str, Any]:
    return {name: values[index] for name, values in (columns or recorded()).items()}


def two(left: Codec, right: Codec) -> Codec:
    return Arms((("left.", left), ("right.", right)))


def of_arm(kind: type[Any], arm: str, **fields: Any) -> Codec:
    names = {"pose": f"{arm}{COMMAND}", "grip": f"{arm}target_grip"}
    state = {} if kind is AbsolutePose else {"state": f"{arm}{STATE}"}
    codec: Codec = kind(**names, **state, **fields)
    return codec


CODECS: dict[str, Codec] = {
    "joints": JointTargets(joints="arm/cmd", n_joints=6),
    "joints without grip": JointTargets(joints="arm/cmd", n_joints=6, grip=None),
    "relative": RelativePose(),
    "relative in base": RelativePose(frame="base"),
    "delta": DeltaPose(),
    "two arms' joints": two(
        JointTargets("action", "left.robot_commands.joints", 7, "left.target_grip"),
        JointTargets("action", "right.robot_commands.joints", 5, None),
    ),
    "two arms' poses": two(of_arm(AbsolutePose, "left."), of_arm(AbsolutePose, "right.")),
    "two arms' motions": two(of_arm(RelativePose, "left."), of_arm(DeltaPose, "right.")),
    "staged": Rename(((COMMAND, COMMAND),)) | (FlipGrip() | RelativePose()),
    **{
        f"{rotation} {reference}": Vector(
            "observation.state", ((STATE, 7), ("q", 6)), reference, rotation
        )
        & AbsolutePose(rotation=rotation, quat_reference=reference)
        for rotation in ("xyzw", "rot6d", "rotvec")
        for reference in ((0.23, 0.89, 0.37, 0.1), None)
    },
}


@pytest.mark.parametrize("name", CODECS)
def test_rows_are_single_observations_and_the_spec_survives(name: str) -> None:
    codec, columns = CODECS[name], recorded()
    assert from_spec(json.loads(json.dumps(codec.to_spec()))) == codec
    together = {name: np.asarray(rows) for name, rows in codec.encode_rows(columns).items()}
    actions = codec.encode_action_rows(columns)
    assert actions.dtype == np.float32
    (feature,) = (f for key, f in codec.features.items() if key == "action")
    assert actions.shape == (ROWS, *feature["shape"])
    encoded: Any = None
    before, previous = None, None
    for index in range(ROWS):
        obs = row(index, columns)
        encoded = codec.encode(obs, encoded)
        for key, value in encoded.items():
            assert value.tobytes() == together[key][index].tobytes()
        before = codec.encode_action(obs, before, previous)
        assert before.tobytes() == actions[index].tobytes()
        previous = obs


def poses_of(commands: list[dict[str, Any]], arm: str = "") -> Any:
    return np.stack([command[f"{arm}robot_command"]["pose"] for command in commands])


@pytest.mark.parametrize("name", [name for name in CODECS if "joints" not in name])
@pytest.mark.parametrize("start", [0, 11])
def test_a_chunk_decodes_to_the_recorded_targets(name: str, start: int) -> None:
    codec, columns = CODECS[name], recorded()
    actions, obs = codec.encode_action_rows(columns)[start : start + 25], row(start, columns)
    arms = ("left.", "right.") if "two arms" in name else ("",)
    # What the robot was commanded before; only step-by-step targets need it.
    before = None
    if start:
        before = {
            f"{arm}robot_command": {"pose": pose_to_wire(columns[f"{arm}{COMMAND}"][start - 1])}
            for arm in arms
        }
    commands = codec.decode_rows(actions, obs, before)
    for arm in arms:
        wanted = pose_to_wire(columns[f"{arm}{COMMAND}"][start : start + 25])
        np.testing.assert_allclose(poses_of(commands, arm), wanted, atol=3e-6)
        grips = [command[f"{arm}target_grip"] for command in commands]
        np.testing.assert_allclose(
            grips, columns[f"{arm}target_grip"][start : start + 25], atol=1e-7
        )
    single = codec.decode(actions[0], obs, before)
    assert poses_of([single], arms[0]).tobytes() == poses_of(commands[:1], arms[0]).tobytes()


def test_steps_from_the_observed_pose_are_off_by_how_far_the_robot_is_behind() -> None:
    columns, start = recorded(), 11
    # A robot that is 3 cm behind its command, turned as commanded.
    columns[STATE] = columns[COMMAND].copy()
    columns[STATE][1:] = columns[COMMAND][:-1]
    columns[STATE][:, 0] -= 0.03
    codec = DeltaPose(frame="base")
    actions = codec.encode_action_rows(columns)[start : start + 9]
    found = poses_of(codec.decode_rows(actions, row(start, columns)))
    wanted = pose_to_wire(columns[COMMAND][start : start + 9])
    wanted[:, 0] -= 0.03
    np.testing.assert_allclose(found, wanted, atol=3e-6)
    # The relative codec knows the distance.
    relative = RelativePose(frame="base")
    actions = relative.encode_action_rows(columns)[start : start + 9]
    found = poses_of(relative.decode_rows(actions, row(start, columns)))
    np.testing.assert_allclose(found, wanted + np.eye(1, 12) * 0.03, atol=3e-6)


def test_relative_actions_are_the_same_wherever_the_robot_stands() -> None:
    columns = recorded()
    moved = dict(columns)
    turn = normalize_quat([0.9, 0.1, -0.3, 0.2])
    for name in (STATE, COMMAND):
        wire = pose_to_wire(np.concatenate([np.zeros(3), turn]))[3:].reshape(3, 3)
        place = columns[name][:, :3] @ wire.T + [1.0, -2.0, 0.5]
        moved[name] = np.concatenate([place, quat_mul(turn, columns[name][:, 3:])], axis=-1)
    for codec in (RelativePose(), DeltaPose()):
        one, other = (codec.encode_action_rows(each) for each in (columns, moved))
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert np.abs(AbsolutePose().encode_action_rows(moved)).max() > 1


def test_relative_actions_want_their_observation() -> None:
    actions = RelativePose().encode_action_rows(recorded())
    with pytest.raises(CodecError, match="relative to the observed pose.*decode them with the"):
        RelativePose().decode_rows(actions)
    with pytest.raises(CodecError, match=f"signal '{STATE}' is missing"):
        (Vector("observation.state", (("q", 6),)) & RelativePose()).decode_rows(actions, {"q": 0})
    with pytest.raises(CodecError, match=f"needs {STATE}; present"):
        (Vector("observation.state", (("q", 6),)) & RelativePose()).encode({"q": np.zeros(6)})
    with pytest.raises(CodecError, match="no rotation"):
        RelativePose().encode({STATE: np.ones(7)})


def test_joints_are_sent_as_they_were_recorded() -> None:
    columns = recorded()
    codec = CODECS["joints"]
    command = codec.decode(codec.encode_action_rows(columns)[3])
    assert command["robot_command"]["type"] == "joint_pos"
    np.testing.assert_array_equal(
        command["robot_command"]["positions"], columns["arm/cmd"][3].astype(np.float32)
    )
    assert command["target_grip"] == np.float32(columns["target_grip"][3])
    assert codec.decode_rows(codec.encode_action_rows(columns))[3].keys() == command.keys()
    gripless = CODECS["joints without grip"]
    assert gripless.decode(np.zeros(6)).keys() == {"robot_command"}
    assert (FlipGrip() | gripless).decode(np.zeros(6)).keys() == {"robot_command"}
    assert "grip" not in gripless.meta
    with pytest.raises(CodecError, match=r"'action' has shape \(8,\), expected 7"):
        codec.decode(np.zeros(8))
    arms = CODECS["two arms' joints"]
    command = arms.decode(arms.encode_action_rows(columns)[3])
    assert [*command] == ["left.robot_command", "left.target_grip", "right.robot_command"]
    assert len(command["right.robot_command"]["positions"]) == 5
    assert arms.features["action"]["names"][7:9] == ["left.grip", "right.joint1"]


def test_a_grip_of_each_arm_can_be_turned() -> None:
    signals = tuple(
        f"{arm}{name}" for arm in ("left.", "right.") for name in ("grip", "target_grip")
    )
    arms = CODECS["two arms' poses"]
    codec, obs = FlipGrip(signals) | arms, row(3)
    command = codec.decode(codec.encode_action(obs))
    assert command["left.target_grip"] == pytest.approx(obs["left.target_grip"])
    assert codec.meta["grip"] == {"open": 0.0, "closed": 1.0}
    with pytest.raises(CodecError, match="the grips of the arms count in opposite ways"):
        two(FlipGrip() | AbsolutePose(), AbsolutePose())


def test_a_gripper_that_points_down_does_not_jump() -> None:
    """Its angle is exactly pi, where the shortest rotation vector changes its sign."""
    columns = recorded()
    codec = CODECS["rotvec (0.23, 0.89, 0.37, 0.1)"]
    state = np.asarray(codec.encode_rows(columns)["observation.state"])[:, 3:6]
    assert np.abs(np.diff(state, axis=0)).max() < 0.2
    assert np.linalg.norm(state, axis=1).min() > 2.5
    shortest = np.asarray(CODECS["rotvec None"].encode_rows(columns)["observation.state"])[:, 3:6]
    assert np.linalg.norm(shortest, axis=1).max() <= np.pi + 1e-6


def test_what_is_no_rotation_is_refused() -> None:
    codec = AbsolutePose(rotation="rot6d")
    with pytest.raises(CodecError, match="two columns are parallel"):
        codec.decode(np.array([0, 0, 0, 1, 0, 0, 2, 0, 0, 1.0]))
    skewed = codec.decode(np.array([0, 0, 0, 2, 0, 0, 1, 3, 0, 1.0]))["robot_command"]["pose"][3:]
    np.testing.assert_allclose(skewed, np.eye(3).ravel(), atol=1e-12)


def test_a_chosen_rotation_is_no_rule_of_a_version() -> None:
    """``--codec.rotation=rot6d`` on a dataset of quaternions must not be overlooked."""
    old = Contract.of(older_form(AbsolutePose()), fps=15)
    assert old.adopt(AbsolutePose()) == older_form(AbsolutePose())
    chosen = AbsolutePose(rotation="rot6d")
    assert old.adopt(chosen) == chosen
    assert old.codec_differences(chosen)
    assert "rotation" not in AbsolutePose().to_spec()


def test_open_sizes_are_filled_in_once() -> None:
    state = Vector("observation.state", (("q", None), ("grip", 1)))
    codec = Rename((("q", "raw.q"),)) | Parallel((state, JointTargets(joints="cmd")), "mine")
    assert codec.unsized == ("raw.q", "cmd")
    with pytest.raises(CodecError, match="does not know how many numbers cmd, raw.q have: "):
        Contract.of(codec, fps=15)
    with pytest.raises(CodecError, match="does not know yet how many numbers 'q' has"):
        codec.encode({"raw.q": np.zeros(6), "grip": 0.5})
    sized = codec.sized({"raw.q": 6, "cmd": 14})
    assert sized.unsized == ()
    assert sized.features["observation.state"]["shape"] == (7,)
    assert sized.features["action"]["shape"] == (15,)
    assert sized.sized({"raw.q": 9}) == sized
    contract = Contract.of(sized, fps=15)
    # A codec that is only named again is the one that was made.
    assert contract.adopt(codec) == sized
    assert contract.make_codec() == sized


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "joint_targets", "n_joints": 0}, "n_joints is 0; give a whole number"),
        ({"kind": "joint_targets", "n_joints": 10**9}, "n_joints is 1000000000"),
        ({"kind": "joint_targets", "joints": 3}, "joints is 3; give a name"),
        ({"kind": "joint_targets", "grip": 3}, "grip is 3; give a name"),
        ({"kind": "absolute_pose", "rotation": "euler"}, "rotation is 'euler'; give one of wxyz"),
        ({"kind": "vector", "key": "a", "signals": [["grip", 1]], "rotation": 1}, "rotation is 1"),
        ({"kind": "relative_pose", "frame": "moon"}, "frame is 'moon'; give one of tool, base"),
        ({"kind": "delta_pose", "state": ""}, "state is ''; give a name"),
        ({"kind": "arms", "arms": []}, "arms has 0 arms; give 1 to 16"),
        ({"kind": "arms", "arms": 3}, "arms is 3; give a list"),
        ({"kind": "arms", "arms": [["l.", 3]]}, "an arm is 3; give a codec of actions"),
        (
            {"kind": "arms", "arms": [["l.", {"kind": "object_poses"}]]},
            "an arm is a ObjectPoses; give a codec of actions",
        ),
        ({"kind": "arms", "arms": [["l.", {"kind": "absolute_pose"}]] * 2}, "each its prefix"),
    ],
)
def test_a_spec_that_is_none_is_refused(spec: Any, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        from_spec(spec)
