import itertools
import json
from typing import Any

import numpy as np
import pytest

from positronic.codec import AbsolutePose, Codec, Contract, FlipGrip, Rename, Vector, from_spec
from positronic.codec.documents import older_form
from positronic.codec.vectors import QUAT_REFERENCE
from positronic.geom import normalize_quat, quat_dot, quat_mul
from positronic.vendors.lerobot.codecs import eepose_absolute, eepose_state, joints_absolute

POSE, COMMAND = "robot_state.ee_pose", "robot_commands.pose"
STATE = "observation.state"


def codec(**fields: Any) -> Codec:
    state = Vector(STATE, (("grip", 1), (POSE, 7)), **fields)
    return Rename((("grip", "g"),)) | (FlipGrip(()) | (state & AbsolutePose(**fields)))


def episode(quats: Any) -> dict[str, Any]:
    poses = np.concatenate([np.random.default_rng(0).normal(size=(len(quats), 3)), quats], axis=-1)
    grips = np.linspace(0, 1, len(quats))
    return {POSE: poses, COMMAND: poses, "g": grips, "target_grip": grips}


def turned(start: Any, turns: float, rows: int) -> Any:
    """A robot that turns about an oblique axis, from ``start`` on."""
    axis = np.array([0.6, 0.48, 0.64])
    half = np.linspace(0, turns * np.pi, rows)[:, np.newaxis]
    return quat_mul(np.concatenate([np.cos(half), np.sin(half) * axis], axis=-1), start)


def encoded(codec: Codec, columns: dict[str, Any]) -> list[Any]:
    """State and action, from all rows together and from one after the other: the same."""
    rows = [{name: values[i] for name, values in columns.items()} for i in range(len(columns["g"]))]
    state, action, states, actions = None, None, [], []
    for obs in rows:
        state = codec.encode(obs, state)
        action = codec.encode_action(obs, action)
        states.append(state[STATE])
        actions.append(action)
    together = [np.asarray(codec.encode_rows(columns)[STATE]), codec.encode_action_rows(columns)]
    for rows_, singles in zip(together, (states, actions), strict=True):
        assert rows_.tobytes() == np.stack(singles).tobytes()
    return together


def flipped(columns: dict[str, Any], signs: Any) -> dict[str, Any]:
    other = dict(columns)
    for name in (POSE, COMMAND):
        turn = np.concatenate([np.ones((len(signs), 3)), np.repeat(signs[:, None], 4, 1)], axis=1)
        other[name] = columns[name] * turn
    return other


HALF = np.sqrt(0.5)
STARTS = [
    (0.0, 1.0, 0.0, 0.0),
    (1.0, 0.0, 0.0, 0.0),
    (HALF, 0.0, -HALF, 0.0),
    tuple(np.random.default_rng(3).normal(size=4)),
]


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("turns", [0.0, 0.4, 3.0])
def test_both_quaternions_of_a_rotation_give_the_same_bits(start: Any, turns: float) -> None:
    rng = np.random.default_rng(1)
    columns = episode(turned(normalize_quat(start), turns, 60))
    expected = encoded(codec(), columns)
    for signs in (-np.ones(60), rng.choice([-1.0, 1.0], 60), rng.choice([-1.0, 1.0], 60)):
        for found, wanted in zip(encoded(codec(), flipped(columns, signs)), expected, strict=True):
            assert found.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("reference", [QUAT_REFERENCE, (0.0, 1.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0)])
def test_half_a_turn_from_the_reference_both_give_the_same_bits_too(reference: Any) -> None:
    # Exactly half a turn, from the reference or from the row before: neither sign is nearer.
    quats = np.array([(0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (1, 0, 0, 0), (0, -1, 0, 0)], float)
    columns = episode(quats)
    expected = encoded(codec(quat_reference=reference), columns)
    for signs in itertools.product((-1.0, 1.0), repeat=len(quats)):
        other = flipped(columns, np.array(signs))
        found = encoded(codec(quat_reference=reference), other)
        for one, two in zip(found, expected, strict=True):
            assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize("start", STARTS)
def test_an_episode_begins_at_the_reference_and_never_jumps(start: Any) -> None:
    quats = turned(normalize_quat(start), 5.0, 300)
    signs = np.random.default_rng(2).choice([-1.0, 1.0], 300)
    state, action = encoded(codec(), flipped(episode(quats), signs))
    for found in (state[:, 4:8], action[:, 3:7]):
        assert quat_dot(found[0], QUAT_REFERENCE) > 0
        assert (quat_dot(found[1:], found[:-1]) > 0.9).all()


def test_a_session_that_asks_once_for_a_chunk_sees_the_same_signs() -> None:
    # 3 turns in 20 s at 15 rows a second; asked every second: 54 degrees.
    columns = episode(turned(np.array([0.0, 1.0, 0.0, 0.0]), 3.0, 300))
    together = np.asarray(codec().encode_rows(columns)[STATE])
    before = None
    for index in range(0, 300, 15):
        obs = {name: values[index] for name, values in columns.items()}
        obs[POSE] = np.concatenate([obs[POSE][:3], -obs[POSE][3:]])
        before = codec().encode(obs, before)
        np.testing.assert_array_equal(before[STATE], together[index])


def test_a_tool_along_the_axes_of_its_base_is_far_from_half_a_turn_of_the_reference() -> None:
    # The 24 rotations of a cube: 4 + 12 + 8 quaternions, up to the sign.
    pairs = [
        np.eye(4)[i] + sign * np.eye(4)[j]
        for i, j in itertools.combinations(range(4), 2)
        for sign in (1, -1)
    ]
    all_four = [np.array([1, a, b, c]) for a, b, c in itertools.product((1, -1), repeat=3)]
    cube = normalize_quat([*np.eye(4), *pairs, *all_four])
    assert len(cube) == 24

    def margin(quats: Any, reference: Any) -> float:
        cosines = np.abs(quat_dot(quats, normalize_quat(reference)))
        return float(np.degrees(2 * np.arcsin(cosines)).min())

    down = normalize_quat([(0, 1, 0, 0), (0, 0, 1, 0), (0, 1, 1, 0), (0, 1, -1, 0)])
    assert margin(cube, QUAT_REFERENCE) > 10
    assert margin(down, QUAT_REFERENCE) > 43
    assert margin(down[:1], QUAT_REFERENCE) > 126
    assert margin(down, (1.0, 0.0, 0.0, 0.0)) == 0  # w >= 0


def test_a_spec_without_the_rule_leaves_signs_as_they_come() -> None:
    old = older_form(codec())
    spec = json.loads(json.dumps(old.to_spec()))
    assert "quat_reference" not in json.dumps(spec)
    assert from_spec(spec) == old != codec()
    columns = flipped(episode(turned(normalize_quat(STARTS[3]), 2.0, 40)), -np.ones(40))
    state, action = encoded(old, columns)
    np.testing.assert_array_equal(state[:, 1:], columns[POSE].astype(np.float32))
    np.testing.assert_array_equal(action[:, :7], columns[COMMAND].astype(np.float32))


def test_a_new_codec_states_the_rule_and_an_old_one_is_what_it_was() -> None:
    for made in (eepose_absolute(), eepose_state()):
        spec = made.to_spec()
        named = [part for part in spec["parts"] if "quat_reference" in part]
        assert [part["kind"] for part in named] == ["vector", "absolute_pose"]
        assert named[0]["quat_reference"] == list(QUAT_REFERENCE)
        assert from_spec(json.loads(json.dumps(spec))) == made
    # Joints have no quaternion.
    (named,) = [part for part in joints_absolute().to_spec()["parts"] if "quat_reference" in part]
    assert named["kind"] == "absolute_pose"
    # What a version without the rule wrote, to the letter.
    assert eepose_state(quat_reference=None).to_spec() == {
        "kind": "parallel",
        "parts": [
            {
                "kind": "vector",
                "key": "observation.state",
                "signals": [["robot_state.ee_pose", 7], ["grip", 1]],
            },
            {
                "kind": "object_poses",
                "key": "observation.environment_state",
                "source": "object_poses",
                "n_objects": 2,
            },
            {
                "kind": "absolute_pose",
                "key": "action",
                "pose": "robot_commands.pose",
                "grip": "target_grip",
            },
        ],
        "label": "eepose_state",
    }


def test_a_codec_says_where_its_quaternions_are() -> None:
    assert codec().quaternions == {STATE: {4: QUAT_REFERENCE}}
    assert joints_absolute().quaternions == older_form(codec()).quaternions == {}


def test_an_old_contract_keeps_its_codec_when_that_is_only_named() -> None:
    old = Contract.of(eepose_state(quat_reference=None), fps=15)
    new = Contract.of(eepose_state(), fps=15)
    assert old.adopt(eepose_state()) == eepose_state(quat_reference=None) == old.make_codec()
    assert new.adopt(eepose_state()) == eepose_state() == new.make_codec()
    # Another codec, or another reference, is not taken for the old one.
    assert old.adopt(eepose_state(n_objects=3)) == eepose_state(n_objects=3)
    assert new.adopt(eepose_state(quat_reference=None)) == eepose_state(quat_reference=None)
