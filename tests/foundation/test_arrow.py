import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from foundation.arrow import as_arrow, as_numpy

RNG = np.random.default_rng(0)
ARRAYS = [
    *(RNG.integers(0, 100, 7).astype(kind) for kind in ("i1", "u1", "i2", "u4", "i8", "u8")),
    *(RNG.normal(size=7).astype(kind) for kind in ("f2", "f4", "f8")),
    np.array([0.0, -0.0, np.nan, np.inf]),
    np.arange(12.0)[::3],
    np.array([True, False, True]),
    np.zeros(0, np.float32),
]


@pytest.mark.parametrize("values", ARRAYS, ids=lambda values: f"{values.dtype} {values.shape}")
def test_there_and_back(values: NDArray[np.float64]) -> None:
    """Arrow's own conversion gives the same, to the bit."""
    made = as_arrow(values)
    made.validate(full=True)
    expected = pa.array(values)
    assert made.type == expected.type
    assert as_numpy(made).tobytes() == as_numpy(expected).tobytes() == values.tobytes()
    assert as_numpy(made[1:]).tobytes() == values[1:].tobytes()


def test_bytes_in_another_order_are_not_taken_for_numbers() -> None:
    with pytest.raises(pa.ArrowNotImplementedError, match="Byte-swapped"):
        as_arrow(np.arange(3.0).astype(">f8"))


def test_empty_values_and_texts() -> None:
    np.testing.assert_array_equal(as_numpy(pa.array([1, None])), [1.0, np.nan])
    assert as_numpy(pa.array(["a", "b"])).tolist() == ["a", "b"]


def test_pandas_is_left_alone() -> None:
    code = (
        "import sys, numpy as np\n"
        "from foundation.arrow import as_arrow, as_numpy\n"
        "assert as_numpy(as_arrow(np.arange(3))).tolist() == [0, 1, 2]\n"
        "assert 'pyarrow' in sys.modules and 'pandas' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
