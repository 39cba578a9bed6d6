"""Numeric signals: one parquet file of timestamps and scalars or vectors.

Columns: ``timestamp`` int64 (ns), ``value`` (a scalar or ``list<float|double|...>``), then any
extra time lines ``ts_ns.<name>`` int64; or named time lines alone, see
:mod:`positronic.dataset.timelines`. The format is that of public Positronic.
"""

from functools import cached_property
from pathlib import Path
from typing import Any, override

import numpy as np
from numpy.typing import NDArray

from positronic.dataset.faults import reading
from positronic.dataset.signal import Indices, Signal, Times
from positronic.dataset.timelines import column_bounds, time_column

TIMESTAMP = "timestamp"
VALUE = "value"


def read_column(path: Path, column: str) -> NDArray[Any]:
    """One column of a parquet file, read-only; whatever pyarrow raises for a damaged file."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        if column not in file.schema_arrow.names:
            raise ValueError(f"{path.name} has no column {column!r}")
        # One thread: columns are small, and a pool per signal would fight parallel workers.
        table = file.read(columns=[column], use_threads=False)
    values = stack_values(table[column])
    values.setflags(write=False)
    return values


def read_timestamps(path: Path, column: str | None) -> Times:
    """Timestamps by the column that has them; ValueError unless int64 that never go back."""
    if column is None:
        return np.zeros(0, dtype=np.int64)
    timestamps = read_column(path, column)
    if timestamps.dtype != np.int64:
        raise ValueError(f"its timestamps are {timestamps.dtype}, expected int64")
    if bool(np.any(timestamps[1:] < timestamps[:-1])):
        raise ValueError("its timestamps go back in time")
    return timestamps


def stack_values(column: Any) -> NDArray[Any]:
    """Arrow column to an array ``(n,)`` or, for lists, ``(n, length)``; ValueError when ragged."""
    import pyarrow as pa

    column = column.combine_chunks()
    if not pa.types.is_list(column.type) and not pa.types.is_large_list(column.type):
        return _as_numpy(column)
    flat = _as_numpy(column.flatten())
    if len(column) == 0:
        return flat.reshape(0, 0)
    lengths = np.diff(_as_numpy(column.offsets))
    if column.null_count or bool(np.any(lengths != lengths[0])):
        raise ValueError("its vectors differ in length")
    return flat.reshape(len(column), int(lengths[0]))


def _as_numpy(array: Any) -> NDArray[Any]:
    import pyarrow as pa

    number = pa.types.is_integer(array.type) or pa.types.is_floating(array.type)
    if number and not array.null_count:
        # pyarrow's own conversion imports pandas, which takes longer than reading an episode.
        return np.from_dlpack(array)
    return np.asarray(array.to_numpy(zero_copy_only=False))


class NumericSignal(Signal):
    """A parquet signal; the footer gives length and ends, the columns load when asked for.

    EpisodeError, naming episode and signal, when the file is missing, damaged or not a signal.
    """

    kind = "numeric"

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._name = name

    def _reading(self) -> Any:
        return reading(self._path.parent, f"signal {self._name!r}", self._path)

    @cached_property
    def _footer(self) -> tuple[int, str | None, tuple[int, int] | None]:
        import pyarrow.parquet as pq

        with self._reading(), pq.ParquetFile(self._path) as file:
            column = time_column(file, TIMESTAMP)
            return file.metadata.num_rows, column, column_bounds(file, column)

    @cached_property
    def _timestamps(self) -> Times:
        column = self._footer[1]
        with self._reading():
            return read_timestamps(self._path, column)

    @cached_property
    def _values(self) -> NDArray[Any]:
        with self._reading():
            return read_column(self._path, VALUE)

    def __len__(self) -> int:
        return self._footer[0]

    def _timestamp_at(self, index: int) -> int:
        bounds = self._footer[2]
        return super()._timestamp_at(index) if bounds is None else bounds[index]

    @override
    def timestamps(self) -> Times:
        return self._timestamps

    @override
    def take(self, indices: Indices) -> NDArray[Any]:
        return np.asarray(self._values[indices])

    def values(self) -> NDArray[Any]:
        """All values, ``(n,)`` for scalars or ``(n, length)`` for vectors; read-only, no copy."""
        return self._values

    @property
    @override
    def dtype(self) -> np.dtype[Any]:
        return self._values.dtype

    @property
    @override
    def shape(self) -> tuple[int, ...]:
        return self._values.shape[1:]
