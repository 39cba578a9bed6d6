from pathlib import Path
from typing import Any

import numpy as np
import pytest

from positronic.dataset import statics


@pytest.mark.parametrize(
    "value",
    [
        "text",
        1,
        -2.5,
        True,
        b"\x00\xff",
        [],
        {},
        [1, ["a", {"b": b"c"}]],
        {"open": 1.0},
        float("inf"),
    ],
)
def test_round_trip(tmp_path: Path, value: Any) -> None:
    values = {"x": statics.checked(value, "x")}
    statics.dump(values, tmp_path / "static.json")
    assert statics.load(tmp_path / "static.json") == {"x": value}


def test_numpy_scalars_and_tuples_become_plain() -> None:
    plain = statics.checked({"a": np.float32(0.5), "b": (np.int64(3), np.bool_(True))}, "x")
    assert plain == {"a": 0.5, "b": [3, True]}
    assert type(plain["b"][0]) is int


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "static x: None cannot be stored"),
        ([1, None], r"static x\[1\]: None"),
        ({"a": {"b": None}}, "static x.a.b: None"),
        (np.zeros(3), "ndarray cannot be stored"),
        ({1: "a"}, "keys of a dict must be str"),
        (object(), "object cannot be stored"),
    ],
)
def test_refused(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        statics.checked(value, "x")
