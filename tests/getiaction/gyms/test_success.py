from typing import Any

import numpy as np
import pytest
import torch

from getiaction.gyms.success import NAMES, success_of


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize(
    "form",
    [
        bool,
        int,
        float,
        np.bool_,
        np.float32,
        lambda told: np.array(told),
        lambda told: np.array([told]),
        lambda told: [told],
        lambda told: torch.tensor(told),
        lambda told: torch.tensor([told]),
    ],
)
def test_every_spelling_and_type(name: str, told: bool, form: Any) -> None:
    assert success_of({name: form(told)}) is told
    assert success_of({"final_info": {name: form(told)}}) is told
    assert success_of({"final_info": [{name: form(told)}]}) is told
    assert success_of({"final_observation": {name: form(told)}}) is told
    array = np.empty(1, dtype=object)
    array[0] = {name: form(told)}
    assert success_of({"final_info": array}) is told


@pytest.mark.parametrize(
    "value",
    [
        None,
        "True",
        b"1",
        "",
        {},
        [],
        0.7,
        2,
        float("nan"),
        np.array([True, False]),
        np.array([]),
        torch.zeros(3),
        object(),
        1j,
        [[1], [1, 2]],
    ],
)
def test_what_is_no_answer(value: Any) -> None:
    assert success_of({"is_success": value}) is None
    # It does not hide what another name tells.
    assert success_of({"is_success": value, "success": True}) is True


def test_nothing_told() -> None:
    assert success_of({}) is None
    assert success_of({"reward": 1.0, "final_info": None}) is None
    assert success_of({"final_info": [{"success": True}, {"success": False}]}) is None
