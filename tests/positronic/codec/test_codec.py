import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from foundation.documents import Reader
from positronic.codec import (
    AbsolutePose,
    Codec,
    FlipGrip,
    Image,
    ObjectPoses,
    Parallel,
    Rename,
    Vector,
    from_spec,
)
from positronic.codec.documents import older_form
from positronic.errors import CodecError
from positronic.geom import quat_from_yaw, yaw
from tests.mutations import mutations


def random_poses(rng: np.random.Generator, *lead: int) -> Any:
    quat = rng.normal(size=(*lead, 4))
    quat /= np.linalg.norm(quat, axis=-1, keepdims=True)
    return np.concatenate([rng.normal(size=(*lead, 3)), quat], axis=-1)


def columns(rows: int = 50) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    return {
        "robot_state.ee_pose": random_poses(rng, rows),
        "robot_state.q": rng.normal(size=(rows, 7)).astype(np.float32),
        "grip": rng.uniform(size=rows),
        "object_poses": random_poses(rng, rows, 2).reshape(rows, 14),
        "image.wrist": list(rng.integers(0, 256, (rows, 24, 32, 3), dtype=np.uint8)),
        "robot_commands.pose": random_poses(rng, rows),
        "target_grip": rng.uniform(size=rows),
    }


def row(index: int, source: dict[str, Any] | None = None) -> dict[str, Any]:
    return {name: values[index] for name, values in (source or columns()).items()}


def state() -> Vector:
    return Vector("observation.state", (("robot_state.ee_pose", 7), ("grip", 1)))


def whole() -> Codec:
    image = Image("observation.images.left", "image.wrist", (16, 20))
    return Parallel((state(), ObjectPoses(), image, AbsolutePose()), "whole")


def one_by_one(codec: Codec, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a session encodes: each observation, told of the one before."""
    encoded: list[dict[str, Any]] = []
    for obs in rows:
        encoded.append(codec.encode(obs, encoded[-1] if encoded else None))
    return encoded


@pytest.mark.parametrize("codec", [whole(), older_form(whole())], ids=["aligned", "as recorded"])
def test_rows_equal_single_observations_bit_for_bit(codec: Codec) -> None:
    recorded = columns()
    rows = [row(index, recorded) for index in range(50)]
    together = {name: list(values) for name, values in codec.encode_rows(recorded).items()}
    for index, single in enumerate(one_by_one(codec, rows)):
        assert list(single) == list(together)
        for name, value in single.items():
            np.testing.assert_array_equal(together[name][index], value)
    actions = codec.encode_action_rows(recorded)
    assert actions.dtype == np.float32
    before = None
    for target, obs in zip(actions, rows, strict=True):
        before = codec.encode_action(obs, before)
        np.testing.assert_array_equal(target, before)


def test_rows_of_strided_and_float32_columns_are_the_same() -> None:
    # A client may send float32 or a view: the bits must not depend on the memory layout.
    recorded = columns()
    strided = dict(recorded)
    strided["object_poses"] = np.asfortranarray(recorded["object_poses"])[::3]
    strided["robot_state.ee_pose"] = np.asfortranarray(recorded["robot_state.ee_pose"])[::3]
    strided["grip"], strided["image.wrist"] = recorded["grip"][::3], []
    encoded = whole().encode_rows(strided)
    rows = [row(index, recorded) for index in range(0, 50, 3)]
    for position, single in enumerate(one_by_one(whole(), rows)):
        for name in ("observation.state", "observation.environment_state"):
            np.testing.assert_array_equal(list(encoded[name])[position], single[name])


def test_features_describe_what_encode_returns() -> None:
    codec, observation = whole(), row(0)
    for name, value in codec.encode(observation).items():
        feature = codec.features[name]
        assert value.shape == tuple(feature["shape"])
        assert value.dtype == (np.uint8 if feature["dtype"] == "video" else np.float32)
    assert codec.encode_action(observation).shape == codec.features["action"]["shape"]


def test_an_image_never_has_to_fit_in_memory() -> None:
    decoded: list[int] = []

    class Frames:
        def __iter__(self) -> Any:
            for index in range(3):
                decoded.append(index)
                yield np.zeros((16, 20, 3), np.uint8)

    frames = iter(
        whole().encode_rows(columns() | {"image.wrist": Frames()})["observation.images.left"]
    )
    next(frames)
    assert decoded == [0]


def test_missing_signals_are_named_with_what_is_present() -> None:
    with pytest.raises(
        CodecError, match=r"'whole' needs grip, image\.wrist; present: object_poses"
    ):
        whole().encode({k: v for k, v in row(0).items() if k not in ("grip", "image.wrist")})
    with pytest.raises(CodecError, match=r"'target_grip' is missing; present: .*grip"):
        whole().encode_action({k: v for k, v in row(0).items() if k != "target_grip"})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("robot_state.ee_pose", np.zeros(6), r"'robot_state.ee_pose' has shape \(6,\), expected 7"),
        ("robot_state.ee_pose", np.zeros((1, 7)), r"'robot_state.ee_pose' has shape \(1, 7\)"),
        ("grip", [0.0, 1.0], r"'grip' has shape \(2,\), expected one number"),
        ("grip", "0.5", "'grip' is not numeric: got str, expected one number"),
        ("grip", b"1", "'grip' is not numeric: got bytes, expected one number"),
        ("grip", True, "'grip' is not numeric: got bool, expected one number"),
        ("grip", None, "'grip' is not numeric: got NoneType, expected one number"),
        ("grip", 1j, "'grip' is not numeric: got complex"),
        ("grip", np.array([True]), "'grip' is not numeric: got bool, expected one number"),
        ("robot_state.ee_pose", [[0.0], [0.0, 1.0]], "not numeric: got nested sequences, expect"),
        ("robot_state.ee_pose", {"x": 1.0}, "is not numeric: got dict, expected 7 numbers"),
        ("robot_state.ee_pose", np.ones(7), r"no rotation at elements 3 to 6: their norm is 2,"),
        ("robot_state.ee_pose", np.zeros(7), "their norm is 0, expected a unit quaternion, wxyz"),
        (
            "object_poses",
            np.tile([0, 0, 0, 1, 0, 0, 0.5], 2),
            "'object_poses' holds no rotation at",
        ),
        ("grip", float("nan"), "'grip' holds a value that is not finite, expected"),
        ("grip", 1e300, "'grip' holds a value that is not finite as float32, expected"),
        ("grip", 3.40282357e38, "'grip' holds a value that is not finite as float32, expected"),
        ("grip", 10**400, "'grip' is not numeric"),
        ("robot_state.ee_pose", [1e300] + [0.0] * 6, "pose' holds a value that is not finite as"),
        ("object_poses", [-1e300] + [0.0] * 13, "poses' holds a value that is not finite as"),
        ("grip", "5" * 1_000_000, "'grip' is not numeric: got str"),
        ("grip", [0.5] * 1_000_000, r"'grip' has shape \(1000000,\), expected one number"),
        ("object_poses", np.zeros(7), r"'object_poses' has shape \(7,\), expected 14"),
        ("image.wrist", np.zeros((24, 32), np.uint8), r"'image.wrist' is uint8 \(24, 32\)"),
        ("image.wrist", np.zeros((24, 32, 3)), r"'image.wrist' is float64 \(24, 32, 3\)"),
        (
            "image.wrist",
            np.zeros((3, 24, 32), np.uint8),
            r"\(3, 24, 32\), expected uint8 \(H, W, 3\)",
        ),
        ("image.wrist", np.zeros((24, 0, 3), np.uint8), r"'image.wrist' is uint8 \(24, 0, 3\)"),
        ("image.wrist", [[0], [0, 1]], "'image.wrist' is object"),
        ("image.wrist", None, "'image.wrist' is object"),
        ("image.wrist", b"JFIF", "'image.wrist' is"),
    ],
)
def test_a_signal_that_does_not_fit_is_named(name: str, value: Any, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        whole().encode(row(0) | {name: value})


@pytest.mark.parametrize(
    ("name", "bad", "message"),
    [
        ("robot_state.ee_pose", [0, 0, 0, 1, 0, 0, 0.5], "no rotation at elements 3 to 6 of row 9"),
        (
            "object_poses",
            [0] * 7 + [0, 0, 0, 0, 0, 0, 0],
            "no rotation at elements 3 to 6 of row 9",
        ),
        ("robot_commands.pose", [0, 0, 0, 0, 0, 0, 0], "no rotation at elements 3 to 6 of row 9"),
        ("robot_commands.pose", [0, 0, 0, 3, 0, 0, 0], "no rotation at elements 3 to 6 of row 9"),
        ("grip", 1e300, "'grip' holds a value that is not finite as float32"),
        ("target_grip", -1e39, "'target_grip' holds a value that is not finite as float32"),
        ("robot_commands.pose", [1e300, 0, 0, 1, 0, 0, 0], "not finite as float32"),
    ],
)
@pytest.mark.parametrize("one", [False, True], ids=["columns", "one row"])
def test_what_is_served_and_what_is_recorded_are_held_to_the_same(
    name: str, bad: Any, message: str, one: bool
) -> None:
    recorded = columns()
    recorded[name] = recorded[name].copy()
    recorded[name][9] = bad
    acting = name in whole().action_inputs
    names = ("encode_action", "encode_action_rows") if acting else ("encode", "encode_rows")
    encode = getattr(whole(), names[0 if one else 1])
    source = row(9, recorded) if one else recorded
    with pytest.raises(CodecError, match=message.removesuffix(" of row 9") if one else message):
        encode(source)


def test_the_smallest_numbers_are_numbers() -> None:
    tiny = row(0) | {"grip": 5e-324}
    assert state().encode(tiny)["observation.state"][-1] == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: {f"{'x' * 500}{index}": 0 for index in range(100_000)},
        lambda: {"x" * 15_000_000: 0},
        lambda: dict.fromkeys(range(1000), 0) | {"name": 0, b"bytes" * 10**6: 0, 10**5000: 0},
        lambda: {"\x1b]0;title\x07": 0},
    ],
    ids=["many", "long", "no text", "escapes"],
)
def test_a_message_is_short_and_quick_whatever_keys_were_sent(
    make: Callable[[], dict[Any, Any]],
) -> None:
    obs = make()
    image = Image("observation.images.left", "image.wrist", (16, 20))
    started = time.process_time()
    for codec in (whole(), state(), image, FlipGrip() | state()):
        with pytest.raises(CodecError, match="; present: ") as caught:
            codec.encode(obs)
        assert len(str(caught.value)) < 2500
        assert str(caught.value).isprintable()
    # 20 ms quiet; what a serving session must not cost the others is 100 ms.
    assert time.process_time() - started < 0.4


def test_a_flipped_grip_that_is_no_number_is_refused_by_name() -> None:
    codec = FlipGrip() | state()
    for value in ("0.5", True, None, [True], [[0.1], [0.2, 0.3]], {"a": 1}, ["0"], 10**400):
        with pytest.raises(CodecError, match="'grip'"):
            codec.encode(row(0) | {"grip": value})
    flipped = codec.encode(row(0) | {"grip": [0.25]})["observation.state"][-1]
    assert flipped == codec.encode(row(0) | {"grip": 0.25})["observation.state"][-1] == 0.75


def test_a_scalar_may_come_as_a_vector_of_one() -> None:
    expected = state().encode(row(0))["observation.state"]
    boxed = state().encode(row(0) | {"grip": np.array([row(0)["grip"]])})["observation.state"]
    np.testing.assert_array_equal(boxed, expected)


def test_object_yaw_turns_four_times_as_fast_and_repeats_every_quarter() -> None:
    angle = np.linspace(-np.pi, np.pi, 37)
    poses = np.concatenate([np.zeros((37, 3)), quat_from_yaw(angle)], axis=-1)
    quarter = np.concatenate([np.zeros((37, 3)), quat_from_yaw(angle + np.pi / 2)], axis=-1)
    codec = ObjectPoses(n_objects=1)
    found = np.asarray(codec.encode_rows({"object_poses": poses})[codec.key])
    np.testing.assert_allclose(found[:, 3], np.sin(4 * angle), atol=1e-6)
    np.testing.assert_allclose(found[:, 4], np.cos(4 * angle), atol=1e-6)
    again = np.asarray(codec.encode_rows({"object_poses": quarter})[codec.key])
    np.testing.assert_allclose(again, found, atol=1e-6)


def test_object_yaw_agrees_with_geom_for_tilted_objects() -> None:
    poses = random_poses(np.random.default_rng(2), 200)
    codec = ObjectPoses(n_objects=1)
    found = np.asarray(codec.encode_rows({"object_poses": poses})[codec.key])
    heading = yaw(poses[:, 3:])
    np.testing.assert_allclose(found[:, 3], np.sin(4 * heading), atol=1e-5)
    np.testing.assert_allclose(found[:, 4], np.cos(4 * heading), atol=1e-5)
    np.testing.assert_array_equal(found[:, :3], poses[:, :3].astype(np.float32))


def test_an_object_with_its_x_axis_vertical_has_yaw_zero() -> None:
    half = np.sqrt(0.5)
    pose = np.array([0, 0, 0, half, 0, half, 0])
    found = ObjectPoses(n_objects=1).encode({"object_poses": pose})
    np.testing.assert_array_equal(found["observation.environment_state"], [0, 0, 0, 0, 1])


def test_decode_gives_position_and_rotation_matrix() -> None:
    quarter_turn = quat_from_yaw(np.pi / 2) * 3  # not of unit length: decode normalises
    command = AbsolutePose().decode(np.array([1, 2, 3, *quarter_turn, 0.25], np.float32))
    assert command["target_grip"] == 0.25
    assert command["robot_command"]["type"] == "cartesian_pos"
    pose = command["robot_command"]["pose"]
    assert pose.dtype == np.float64
    np.testing.assert_allclose(pose, [1, 2, 3, 0, -1, 0, 1, 0, 0, 0, 0, 1], atol=1e-6)


def strided(rows: int) -> Any:
    """A view of every third row of a column-major array, as a policy's output may be one."""
    return np.asfortranarray(np.random.default_rng(5).normal(size=(3 * rows, 9)))[::3, 1:]


@pytest.mark.parametrize("rows", [1, 2, 7, 100])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "codec",
    [
        AbsolutePose(),
        FlipGrip() | AbsolutePose(),
        Rename((("grip", "g"),)) | (state() & AbsolutePose()),
    ],
    ids=["plain", "flipped", "nested"],
)
def test_many_actions_are_decoded_to_the_bits_of_each_alone(
    codec: Codec, rows: int, dtype: Any
) -> None:
    actions = strided(rows).astype(dtype, copy=False)
    together = codec.decode_rows(actions)
    assert len(together) == rows
    for action, command in zip(actions, together, strict=True):
        alone = codec.decode(action)
        assert command.keys() == alone.keys()
        assert command["target_grip"] == alone["target_grip"]
        assert command["robot_command"]["type"] == alone["robot_command"]["type"]
        pose, expected = command["robot_command"]["pose"], alone["robot_command"]["pose"]
        assert (pose.dtype, pose.shape) == (expected.dtype, expected.shape)
        assert pose.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("row", "message"),
    [(np.full(8, np.nan), "not finite"), (np.zeros(8), "holds no rotation")],
)
def test_one_action_of_many_that_is_none_is_refused(row: Any, message: str) -> None:
    actions = np.ones((5, 8))
    actions[3] = row
    with pytest.raises(CodecError, match=message):
        whole().decode_rows(actions)
    with pytest.raises(CodecError, match=r"shape \(7,\), expected 8"):
        whole().decode_rows(np.ones((5, 7)))


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros(7), r"'action' has shape \(7,\), expected 8"),
        (np.zeros((1, 8)), r"'action' has shape \(1, 8\)"),
        (np.zeros(8), "holds no rotation"),
        (np.full(8, np.nan), "not finite"),
    ],
)
def test_an_action_that_is_none_is_refused(action: Any, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        whole().decode(action)


def test_parts_without_action_say_so() -> None:
    with pytest.raises(CodecError, match="encodes observations only"):
        (state() & ObjectPoses()).decode(np.zeros(8))
    with pytest.raises(CodecError, match="encodes observations only"):
        state().encode_action({})


def test_every_element_knows_where_it_comes_from() -> None:
    pose, grip = "robot_state.ee_pose", "grip"
    assert whole().origins == {
        "observation.state": (pose,) * 7 + (grip,),
        "observation.environment_state": ("object_poses",) * 10,
    }
    renamed = Rename((("grip", "gripper"),)) | state()
    assert renamed.origins["observation.state"][-1] == "gripper"


def test_parallel_merges_and_refuses_a_clash() -> None:
    joined = state() & ObjectPoses() & AbsolutePose()
    assert list(joined.features) == ["observation.state", "observation.environment_state", "action"]
    assert joined.inputs == ("robot_state.ee_pose", "grip", "object_poses")
    assert joined.action_inputs == ("robot_commands.pose", "target_grip")
    with pytest.raises(CodecError, match="both have feature 'observation.state'"):
        state() & Vector("observation.state", (("grip", 1),))


def test_spec_survives_json() -> None:
    staged = Rename((("grip", "gripper"),)) | whole()
    for codec in (whole(), staged):
        again = from_spec(json.loads(json.dumps(codec.to_spec())))
        assert again == codec
        assert again.name == codec.name
        assert again.features == codec.features


def test_no_codec_takes_the_kind_of_another() -> None:
    """Specs of the project's own images were read as the other class."""
    with pytest.raises(CodecError, match="Thermal and Image are both codecs of the kind 'image'"):
        type("Thermal", (Codec,), {"kind": "image"})
    assert isinstance(from_spec(IMAGE), Image)
    # A module that is loaded again, as __main__ is in a worker process.
    assert [type("Again", (Codec,), {"kind": "again"}).__name__ for _ in range(2)] == ["Again"] * 2


IMAGE = {"kind": "image", "key": "a", "source": "b", "size": [4, 4]}
VECTOR = {"kind": "vector", "key": "a", "signals": [["grip", 1]]}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "telepathy"}, "unknown codec kind 'telepathy'.*parallel"),
        ({"kind": ["vector"]}, "unknown codec kind a list"),
        ({"kind": "\x1b[2J"}, r"unknown codec kind '\\x1b\[2J'"),
        ({}, "unknown codec kind None"),
        ([], "the codec spec: expected a valid dictionary"),
        ({"kind": "vector", "colour": 1}, "spec of kind 'vector' is invalid"),
        ({"kind": "vector", "\x1b": 1}, "spec of kind 'vector' is invalid"),
        ({"kind": "flip_grip"}, "is a stage"),
        (VECTOR | {"signals": [["grip", 10**9]]}, "the size of grip is 1000000000; give a whole"),
        (VECTOR | {"signals": [["grip", 1e300]]}, "the size of grip is 1e"),
        (VECTOR | {"signals": [["grip", -1]]}, "the size of grip is -1"),
        (VECTOR | {"signals": [["grip", 60_000], ["q", 60_000]]}, "of all signals is 120000"),
        (VECTOR | {"signals": []}, "of all signals is 0"),
        (VECTOR | {"signals": [["grip"]]}, "signals is a list; give a list of pairs"),
        (VECTOR | {"signals": "grip"}, "signals is 'grip'; give a list"),
        (VECTOR | {"signals": None}, "signals is None; give a list"),
        (VECTOR | {"signals": [["\x1b[2J", 1]]}, r"a signal is '\\x1b\[2J'; give a name"),
        (VECTOR | {"key": "../../etc/x"}, "key is '../../etc/x'; give the name of a feature"),
        (VECTOR | {"key": "a" * 300}, "key is 'aaa.*; give a name of 1 to 200"),
        (VECTOR | {"quat_reference": [1, 0, 0]}, r"quat_reference is \[1, 0, 0\]; give a unit"),
        (VECTOR | {"quat_reference": [10**400, 0, 0, 0]}, "quat_reference is"),
        (VECTOR | {"quat_reference": [0, 0, 0, 0]}, "quat_reference is"),
        ({"kind": "absolute_pose", "quat_reference": "abcd"}, "quat_reference is 'abcd'"),
        ({"kind": "absolute_pose", "pose": 3}, "pose is 3; give a name"),
        (IMAGE | {"size": [10**9, 10**9]}, "image_size is .*at most 4096 each"),
        (IMAGE | {"size": [True, True]}, "image_size is .*at most 4096 each"),
        (IMAGE | {"size": {"a": 1}}, "image_size is a dict"),
        (IMAGE | {"source": None}, "source is None; give a name"),
        ({"kind": "object_poses", "n_objects": 10**9}, "n_objects is 1000000000; give a whole"),
        ({"kind": "object_poses", "n_objects": True}, "n_objects is True"),
        ({"kind": "object_poses", "n_objects": 10**400}, "n_objects is a number of more than"),
        ({"kind": "rename", "names": [["a", "b", "c"]]}, "names is a list; give a list of pairs"),
        ({"kind": "sequential", "stage": VECTOR, "codec": VECTOR}, "stage is a Vector; expected a"),
        (
            {"kind": "sequential", "stage": {"kind": "flip_grip"}, "codec": 5},
            "codec is 5; expected a",
        ),
        ({"kind": "parallel", "parts": [5]}, "a part is 5; expected codecs"),
        ({"kind": "parallel", "parts": [{"kind": "flip_grip"}]}, "a part is a FlipGrip"),
        ({"kind": "parallel", "parts": 5}, "parts is 5; give a list"),
        ({"kind": "parallel", "parts": [], "label": 5}, "label is 5; expected a printable name"),
        ({"kind": "parallel", "parts": [VECTOR] * 100_000}, "more than the 100000 values"),
    ],
)
def test_a_spec_that_is_none_is_refused(spec: Any, message: str) -> None:
    with pytest.raises(CodecError, match=message) as caught:
        from_spec(spec)
    assert str(caught.value).isprintable()


def test_a_spec_that_is_nested_without_end_is_refused() -> None:
    spec: dict[str, Any] = VECTOR
    for _ in range(10_000):
        spec = {"kind": "sequential", "stage": {"kind": "flip_grip"}, "codec": spec}
    with pytest.raises(CodecError, match="nested more than 32 levels deep"):
        from_spec(spec)


def test_ten_thousand_damaged_specs_are_codecs_or_refused() -> None:
    staged = Rename((("grip", "gripper"),)) | (FlipGrip() | whole())
    specs = Reader(error=CodecError, size=1 << 20)
    fine, messages = 0, []
    for damaged in mutations(staged.to_spec(), 10_000, seed=4):
        try:
            codec = from_spec(specs.parse_json(damaged, dict, "the spec"))
        except CodecError as error:
            messages.append(str(error))
        else:
            fine += 1
            assert from_spec(codec.to_spec()) == codec
            assert codec.features is not None
    assert all(message.isprintable() and len(message) < 1000 for message in messages)
    assert fine > 100  # not all damage matters


def test_stages_rewrite_before_and_undo_after() -> None:
    # The same episode as a later public version records it: other name, other grip.
    new = row(3)
    old = {k: v for k, v in new.items() if k != "robot_commands.pose"}
    old |= {"robot_command.pose": new["robot_commands.pose"]}
    old |= {"grip": 1 - new["grip"], "target_grip": 1 - new["target_grip"]}
    codec = Rename((("robot_commands.pose", "robot_command.pose"),)) | (FlipGrip() | whole())
    assert codec.action_inputs == ("robot_command.pose", "target_grip")
    assert codec.meta["grip"] == {"open": 0.0, "closed": 1.0}
    np.testing.assert_allclose(codec.encode_action(old), whole().encode_action(new), atol=1e-7)
    encoded, expected = codec.encode(old), whole().encode(new)
    np.testing.assert_allclose(
        encoded["observation.state"], expected["observation.state"], atol=1e-7
    )
    action = whole().encode_action(new)
    wire, plain = codec.decode(action), whole().decode(action)
    assert wire["target_grip"] == 1 - plain["target_grip"]
    np.testing.assert_array_equal(wire["robot_command"]["pose"], plain["robot_command"]["pose"])
