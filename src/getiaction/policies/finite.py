"""Check that weights are finite numbers: in memory after a step, or in a file before use."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from foundation.documents import Document, Reader

if TYPE_CHECKING:
    from torch import Tensor

# By safetensors' dtype: an unsigned integer of the same width, and the bits that are all set in
# infinities and NaN (for E4M3, NaN alone). Types not listed (integers, booleans) are always finite.
_EXPONENTS: dict[str, tuple[type[np.unsignedinteger[Any]], int]] = {
    "F64": (np.uint64, 0x7FF0_0000_0000_0000),
    "F32": (np.uint32, 0x7F80_0000),
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
    "F8_E5M2": (np.uint8, 0x7C),
    "F8_E4M3": (np.uint8, 0x7F),
}
# Bounds the memory for a file of many gigabytes.
_CHUNK_BYTES = 16 << 20

_READER = Reader(mend="take the checkpoint from its training run again", size=100 << 20)


class _Tensor(Document):
    dtype: str
    data_offsets: Annotated[list[int], Field(min_length=2, max_length=2)]


def first_non_finite(weights: "Mapping[str, Tensor] | Path") -> str | None:
    """Return the name of the first weight that holds NaN or an infinity; None if none does.

    Args:
        weights: Tensors by name, as from ``Module.state_dict()``, checked with one synchronisation
            with their device; or a safetensors file, read without torch.

    Raises:
        OSError: the file cannot be read.
        InvalidDocument: it is not a safetensors file, or it is truncated.
    """
    if isinstance(weights, Path):
        return next((name for name, bad in _in_file(weights) if bad), None)
    return _in_memory(weights)


def _in_memory(weights: "Mapping[str, Tensor]") -> str | None:
    from torch.nn.utils import get_total_norm

    floats = {n: t for n, t in weights.items() if t.is_floating_point() and t.numel()}
    # The maximum norm, which cannot overflow; NaN if any weight is NaN.
    if not floats or math.isfinite(get_total_norm(list(floats.values()), math.inf)):
        return None
    return next(name for name, tensor in floats.items() if not tensor.isfinite().all())


def _in_file(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield each tensor's name, and whether it holds a number that is not finite."""
    with path.open("rb") as file:
        size = path.stat().st_size
        begin = 8 + int.from_bytes(file.read(8), "little")
        if not 8 < begin <= min(size, _READER.size):
            raise _READER.refusal(f"{path} is not a safetensors file, or it was cut")
        header = _READER.parse_json(file.read(begin - 8), dict[str, object], str(path))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            tensor = _READER.validate(entry, _Tensor, f"{path}: tensor {name[:100]!r}")
            first, last = tensor.data_offsets
            width = np.dtype(_EXPONENTS.get(tensor.dtype, (np.uint8, 0))[0]).itemsize
            if not 0 <= first <= last <= size - begin or (last - first) % width:
                raise _READER.refusal(f"{path} was cut: tensor {name[:100]!r} is not whole")
            yield (
                name,
                tensor.dtype in _EXPONENTS
                and any(
                    _is_beyond(part, tensor.dtype)
                    for part in _parts(path, begin + first, last - first)
                ),
            )


def _parts(path: Path, offset: int, nbytes: int) -> Iterator[NDArray[np.uint8]]:
    for done in range(0, nbytes, _CHUNK_BYTES):
        count = min(_CHUNK_BYTES, nbytes - done)
        yield np.fromfile(path, np.uint8, count, offset=offset + done)


def _is_beyond(part: NDArray[np.uint8], dtype: str) -> bool:
    kind, exponent = _EXPONENTS[dtype]
    bits = part.view(kind)
    return bool(((bits & kind(exponent)) == exponent).any())
