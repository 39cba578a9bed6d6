"""The codec that changes nothing, on features of other robots than the project's."""

import json
from typing import Any

import numpy as np
import pytest

from positronic.codec import Contract, LeRobotFeatures, from_spec
from positronic.errors import CodecError

FEATURES: dict[str, dict[str, Any]] = {
    "action": {"dtype": "float32", "shape": (3,), "names": ["x", "y", "grip"]},
    "observation.state": {"dtype": "float64", "shape": (5,), "names": None},
    "observation.touch": {"dtype": "bool", "shape": (2,), "names": ["left", "right"]},
    "observation.images.front": {"dtype": "video", "shape": (6, 8, 3), "names": None},
}


def codec() -> LeRobotFeatures:
    return LeRobotFeatures.of(FEATURES)


def row(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "observation.state": rng.normal(size=5),
        "observation.touch": np.array([True, False]),
        "observation.images.front": rng.integers(0, 256, (6, 8, 3), dtype=np.uint8),
        "action": rng.normal(size=3),
    }


def test_observations_and_actions_pass_as_they_are() -> None:
    encoded = codec().encode(row())
    assert list(encoded) == [name for name in FEATURES if name != "action"]
    np.testing.assert_array_equal(
        encoded["observation.state"], row()["observation.state"].astype(np.float32)
    )
    np.testing.assert_array_equal(encoded["observation.touch"], np.array([1, 0], np.float32))
    np.testing.assert_array_equal(
        encoded["observation.images.front"], row()["observation.images.front"]
    )
    action = codec().encode_action(row())
    command = codec().decode(action)
    assert list(command) == ["action"]
    assert command["action"].dtype == np.float32
    np.testing.assert_array_equal(command["action"], action)
    rows = codec().decode_rows(np.arange(6, dtype=np.float32).reshape(2, 3))
    np.testing.assert_array_equal([each["action"] for each in rows], [[0, 1, 2], [3, 4, 5]])


def test_columns_give_the_same_bits_as_rows() -> None:
    rows = [row(seed) for seed in range(4)]
    columns = {name: np.stack([each[name] for each in rows]) for name in rows[0]}
    encoded = {name: list(values) for name, values in codec().encode_rows(columns).items()}
    for i, each in enumerate(rows):
        for name, value in codec().encode(each).items():
            np.testing.assert_array_equal(encoded[name][i], value)
    np.testing.assert_array_equal(
        codec().encode_action_rows(columns), [codec().encode_action(each) for each in rows]
    )


def test_the_contract_holds_features_and_survives_json() -> None:
    contract = Contract.of(codec(), fps=50)
    again = Contract.parse(json.dumps(contract.to_json()), "a file")
    assert again == contract
    assert again.make_codec() == codec() == from_spec(codec().to_spec())
    assert again.features["action"]["names"] == ["x", "y", "grip"]
    assert again.codec["name"] == "lerobot"
    again.require_made(again.make_codec())


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("observation.state", np.zeros(4), r"shape \(4,\), expected 5 numbers"),
        ("observation.state", np.full(5, np.nan), "not finite"),
        ("observation.state", np.zeros(5, bool), "not numeric"),
        ("observation.images.front", np.zeros((6, 9, 3), np.uint8), r"6 x 9 pixels .* 6 x 8"),
        (
            "observation.images.front",
            np.zeros((3, 6, 8), np.uint8),
            r"it is channels first; transpose it to \(H, W, 3\)$",
        ),
        (
            "observation.images.front",
            np.full((3, 6, 8), 0.5, np.float32),
            r"channels first and floats from 0 to 1; transpose .*, send round\(255",
        ),
        (
            "observation.images.front",
            np.full((6, 8, 3), 200.0),
            "it is floats; send uint8 from 0 to 255",
        ),
        ("observation.images.front", np.zeros((1, 6, 8, 3), np.uint8), "a batch of one; take its"),
        ("observation.images.front", np.zeros((6, 8, 4), np.uint8), r"expected uint8 \(6, 8, 3\)$"),
        ("observation.images.front", [[[0]]], "expected uint8"),
    ],
)
def test_what_does_not_fit_is_named_as_what_it_is(name: str, value: Any, expected: str) -> None:
    with pytest.raises(CodecError, match=expected) as error:
        codec().encode(row() | {name: value})
    assert name in str(error.value)


@pytest.mark.parametrize("name", [name for name in FEATURES if name != "action"])
def test_what_is_missing_is_named(name: str) -> None:
    with pytest.raises(CodecError, match=f"'{name}' is missing; present: action"):
        codec().encode({key: value for key, value in row().items() if key != name})


def test_an_action_of_another_size_is_refused() -> None:
    with pytest.raises(CodecError, match="expected 3 numbers"):
        codec().decode(np.zeros(4))
    with pytest.raises(CodecError, match="has no feature 'action'"):
        LeRobotFeatures.of({"observation.state": FEATURES["observation.state"]}).encode_action({})


@pytest.mark.parametrize(
    "columns",
    [
        [["a", "float32", [3]]],
        [["a", "float32", [3, 2], None]],
        [["a", "complex64", [3], None]],
        [["a", "image", [3, 8, 8], None]],
        [["a", "image", [9000, 8, 3], None]],
        [["a", "float32", [0], None]],
        [["a/b", "float32", [3], None]],
        [["a", "float32", [3], [1]]],
        [["a", "float32", [1], None], ["a", "float32", [1], None]],
        "text",
    ],
)
def test_a_spec_that_is_not_one_is_refused(columns: Any) -> None:
    with pytest.raises(CodecError):
        from_spec({"kind": "lerobot", "columns": columns})
