from typing import Any

import numpy as np
import pytest

from positronic.errors import SessionError
from positronic.offboard.finite import require_finite

POSE = np.eye(3, 4).ravel()


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        [{"robot_command": {"type": "cartesian_pos", "pose": POSE}, "target_grip": 1.0}],
        {"columns": {"grip": ["float", np.ones(3)], "name": ["same", "inf"]}, "count": 3},
        {"image": np.zeros((2, 2), np.uint8), "text": np.array(["nan"])},
    ],
)
def test_numbers_and_words_are_let_through(answer: Any) -> None:
    require_finite(answer)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_refused_wherever_it_is(bad: float) -> None:
    pose = POSE.copy()
    pose[7] = bad
    for answer in (
        [{"target_grip": 0.0}, {"target_grip": bad}],
        [{"robot_command": {"pose": pose}}],
        {"columns": {"robot_command": {"pose": ["array", np.stack([POSE, pose])]}}},
        {"a": ({"b": [np.float32(bad)]},)},
        np.array(bad, np.float16),
    ):
        with pytest.raises(SessionError, match="not finite numbers"):
            require_finite(answer)
