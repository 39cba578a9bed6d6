from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from positronic.codec.limits import ActionLimits
from positronic.errors import CodecError

# Seven joints and a grip, of which one joint hardly moved.
SEEN = {
    "min": np.array([-1, -2, -0.001, -1, -1, -1, -1, 0], np.float32),
    "max": np.array([2, 1, 0.001, 1, 1, 1, 1, 1], np.float32),
}


def chunk(**changes: float) -> NDArray[np.float32]:
    actions = np.full((12, 8), 0.5, np.float32)
    for name, value in changes.items():
        actions[5, int(name[1:])] = value
    return actions


@pytest.mark.parametrize(
    "changes", [{}, {"e0": 19.9}, {"e1": -19.9}, {"e2": 0.9}, {"e7": -9.9}, {"e3": 0.0}]
)
def test_a_robot_may_go_where_training_never_was(changes: dict[str, float]) -> None:
    ActionLimits.of(SEEN).check(chunk(**changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"e0": 200.0}, "200 for element 0 of action 5, expected at most 20: .* was 2;"),
        ({"e1": -20.1}, "-20.1 for element 1"),
        ({"e2": 1.1}, "1.1 for element 2 of action 5, expected at most 1:"),
        ({"e0": 21.0, "e7": 6e37}, "6e[+]37 for element 7"),
        ({"e4": float("nan")}, "not finite"),
        ({"e4": float("-inf")}, "not finite"),
    ],
)
def test_but_not_to_where_no_robot_is(changes: dict[str, float], expected: str) -> None:
    with pytest.raises(CodecError, match=expected):
        ActionLimits.of(SEEN).check(chunk(**changes))


@pytest.mark.parametrize("stats", [{}, {"min": SEEN["min"]}, {"mean": SEEN["max"]}])
def test_without_a_range_numbers_are_all_that_is_asked_for(stats: Any) -> None:
    ActionLimits.of(stats).check(chunk(e0=6e37))
    with pytest.raises(CodecError, match="not finite"):
        ActionLimits.of(stats).check(chunk(e0=float("inf")))
