from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from foundation.documents import InvalidDocument
from getiaction.policies.finite import first_non_finite

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2]


def weights(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    chance = torch.Generator().manual_seed(3)
    made = {f"layer{i}": torch.randn(5, 7, generator=chance).to(dtype) for i in range(4)}
    return {
        **made,
        "steps": torch.tensor(2**40),
        "empty": torch.zeros(0),
        "flag": torch.ones(3) > 0,
    }


def saved(tensors: dict[str, torch.Tensor], folder: Path) -> Path:
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder / "model.safetensors"


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_names_the_weight_that_is_not_finite(
    tmp_path: Path, dtype: torch.dtype, value: float
) -> None:
    tensors = weights(dtype)
    tensors["layer2"] = tensors["layer2"].float().index_fill(0, torch.tensor(4), value).to(dtype)

    assert first_non_finite(saved(tensors, tmp_path)) == "layer2"
    if dtype is not torch.float8_e5m2:  # which torch does not reduce
        assert first_non_finite(tensors) == "layer2"


@pytest.mark.parametrize("dtype", [*FLOATS, torch.float8_e4m3fn])
def test_lets_the_largest_finite_number_through(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = weights(dtype)
    tensors["layer1"] = torch.full((5, 7), torch.finfo(dtype).max, dtype=torch.float64).to(dtype)

    assert first_non_finite(saved(tensors, tmp_path)) is None
    if dtype not in (torch.float8_e5m2, torch.float8_e4m3fn):
        assert first_non_finite(tensors) is None


def test_has_nothing_to_say_of_no_weights(tmp_path: Path) -> None:
    assert first_non_finite({}) is None
    assert first_non_finite({"step": torch.tensor(3)}) is None
    assert first_non_finite(saved({}, tmp_path)) is None


@pytest.mark.parametrize("part", [0, 4, 9, 60, -1])
def test_refuses_a_file_that_was_cut(tmp_path: Path, part: int) -> None:
    path = saved(weights(), tmp_path)
    path.write_bytes(path.read_bytes()[:part])

    with pytest.raises(InvalidDocument, match=r"model\.safetensors"):
        first_non_finite(path)


@pytest.mark.parametrize(
    "header", [b"[]", b"{", b'{"a": 1}', b'{"a": {"dtype": "F32", "data_offsets": [0, 1e9]}}']
)
def test_refuses_a_header_that_is_none(tmp_path: Path, header: Any) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)

    with pytest.raises(InvalidDocument):
        first_non_finite(path)
