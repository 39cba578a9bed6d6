import math
from typing import Any

import numpy as np
import pytest

from positronic.errors import SessionError
from positronic.offboard import wire
from positronic.offboard.wire import fold, unfold


def action(i: int) -> dict[str, Any]:
    pose = np.arange(7.0) + i
    command = {"type": "cartesian_pos", "pose": pose, "mode": None}
    return {"robot_command": command, "target_grip": 0.1 * i, "timestamp": i / 15}


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, np.ndarray):
        same = type(b) is np.ndarray and (a.dtype, a.shape) == (b.dtype, b.shape)
        return same and a.tobytes() == b.tobytes()
    return type(a) is type(b) and (a == b or (a != a and b != b))


@pytest.mark.parametrize("count", [1, 2, 100])
def test_a_chunk_comes_back_as_it_was_over_the_wire(count: int) -> None:
    chunk = [action(i) for i in range(count)]
    columns = wire.unpack(wire.pack(fold(chunk)))
    rows = unfold(columns, count)
    assert len(rows) == count
    assert all(equal(a, b) for a, b in zip(chunk, rows, strict=True))
    assert len(wire.pack(columns)) < len(wire.pack(chunk)) or count < 10


def test_numbers_keep_their_kind_and_every_bit() -> None:
    rows = [
        {"a": math.nan, "b": -0.0, "c": np.array([0.1], np.float32), "d": 3, "e": True}
        for _ in "12"
    ]
    back = unfold(fold(rows), 2)
    assert all(equal(a, b) for a, b in zip(rows, back, strict=True))
    assert math.copysign(1, back[0]["b"]) == -1


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [action(0), {"timestamp": 0.1}],
        [{"a": 1.0}, {"a": 1}],
        [{"a": np.zeros(2)}, {"a": np.zeros(3)}],
        [{"a": np.zeros(2)}, {"a": np.zeros(2, np.float32)}],
        [{"a": np.zeros(())}, {"a": np.zeros(())}],
        [{"a": "left"}, {"a": "right"}],
        [{"a": 1}, {"a": 2}],
        [{"a": [1.0]}, {"a": [1.0]}],
        [{"a": np.float32(1)}, {"a": np.float32(1)}],
        [{"a": {}}, {"a": None}],
    ],
)
def test_rows_of_no_common_form_are_left_as_they_are(rows: list[Any]) -> None:
    assert fold(rows) is None


@pytest.mark.parametrize(
    "columns",
    [
        None,
        3,
        [],
        ["same"],
        ["array", [1.0, 2.0]],
        ["array", np.zeros((3, 7))],
        ["array", np.zeros(())],
        ["float", np.zeros((2, 1))],
        {"a": ["other", 1]},
    ],
)
def test_what_is_no_column_is_named(columns: Any) -> None:
    with pytest.raises(SessionError, match="columns"):
        unfold(columns, 2)


def test_empty_maps_are_rows_too() -> None:
    assert unfold(fold([{}, {}]), 2) == [{}, {}]
