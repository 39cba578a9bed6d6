"""Conversion between numpy and Arrow arrays without pandas, which pyarrow's own methods import.

That import takes seconds: at the start of a program, or while a robot moves and the first values of
a recording are written.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def as_numpy(array: Any) -> NDArray[Any]:
    """Return an Arrow array as a read-only numpy array ``(n,)``.

    Numbers without nulls are not copied; everything else is converted by pyarrow.
    """
    import pyarrow as pa

    number = pa.types.is_integer(array.type) or pa.types.is_floating(array.type)
    if number and not array.null_count:
        return np.from_dlpack(array)
    return np.asarray(array.to_numpy(zero_copy_only=False))


def as_arrow(values: NDArray[Any]) -> Any:
    """Return a numpy array ``(n,)`` as an Arrow array.

    Numbers are not copied, so ``values`` must not be written to afterwards.
    """
    import pyarrow as pa

    if values.dtype.kind not in "iuf" or not values.dtype.isnative:
        return pa.array(values)
    buffer = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, buffer])
