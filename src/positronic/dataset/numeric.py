"""Numeric signals: one parquet file of timestamps and scalars or vectors.

Columns: ``timestamp`` int64 (ns), ``value`` (a scalar or ``list<float|double|...>``), then optional
extra time lines ``ts_ns.<name>`` int64; or only named time lines, see
:mod:`positronic.dataset.numeric`. The format is that of public Positronic.
"""

from functools import cached_property
from pathlib import Path
from typing import Any, override

import numpy as np
from numpy.typing import NDArray

from foundation.arrow import as_numpy
from foundation.tables import Table, open_table
from foundation.text import printable
from positronic.dataset.faults import reading
from positronic.dataset.signal import Indices, Signal, Times

VERSION = b"positronic.signal_version"
NAMED = b"2"
PREFIX = "ts."
# In the order of preference of public Positronic's converter. All use the same clock, so signals of
# an episode may use different ones of these; that converter leaves out signals that lack the first
# one that any signal has.
ORDER = ("harness.world", "received.world", "recorded")


TIMESTAMP = "timestamp"
VALUE = "value"
# An episode is one attempt at a task, at most hours long. Resampling at a fixed rate takes memory
# and time proportional to the span; a clock set from 1970 to today while recording makes it 50
# years.
LONGEST_NS = 24 * 3600 * 10**9
LATEST_NS = 2**62  # the year 2116; sums and differences of such times do not overflow
FOOTER = 8 << 20  # bytes; that of 36 million rows in groups of 10,000 takes 3 MB
Ends = tuple[int, int]


def time_column(table: Table, unnamed: str) -> str | None:
    """The timestamp column of an open parquet file; ``unnamed`` is its name in format version 1.

    None if the file has neither samples nor time lines; ValueError if it cannot be determined.
    """
    names = table.names
    version = table.metadata.get(VERSION)
    if version is None:
        if unnamed not in names:
            raise ValueError(f"it has no column {unnamed!r}")
        return unnamed
    if version != NAMED:
        found = printable(version.decode(errors="replace"), 20)
        raise ValueError(f"its format version is {found}, expected 1 or 2")
    for line in ORDER:
        if PREFIX + line in names:
            return PREFIX + line
    if table.rows == 0:
        return None
    lines = [name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX)]
    raise ValueError(f"its time lines are {printable(lines)}, expected one of {list(ORDER)}")


def read_column(path: Path, column: str) -> NDArray[Any]:
    """One column of a parquet file, read-only; InvalidDocument or ValueError for a damaged file."""
    with open_table(path, FOOTER) as table:
        content = table.read([column])
    values = stack_values(content[column])
    values.setflags(write=False)
    return values


def read_footer(table: Table, unnamed: str) -> tuple[int, str | None, Ends | None]:
    """Number of samples, timestamp column, and first and last timestamp if the footer states them.

    ``unnamed`` is the timestamp column of recordings with one time line. ValueError or
    InvalidDocument if the footer is invalid.
    """
    column = time_column(table, unnamed)
    if column is None or table.rows == 0:
        return table.rows, column, None
    table.check([column])  # verifies the number of rows
    ends = table.ends(column)
    if ends is not None:
        _require_plausible(*ends)
    return table.rows, column, ends


def read_timestamps(path: Path, column: str | None, ends: Ends | None = None) -> Times:
    """Read and check the timestamp column.

    ValueError unless it is int64, never decreases, spans at most ``LONGEST_NS``, and begins and
    ends with ``ends``, if these were read from the footer.
    """
    if column is None:
        return np.zeros(0, dtype=np.int64)
    timestamps = read_column(path, column)
    if timestamps.dtype != np.int64 or timestamps.ndim != 1:
        raise ValueError(f"its timestamps are {timestamps.dtype}, expected int64")
    if bool(np.any(timestamps[1:] < timestamps[:-1])):
        raise ValueError("its timestamps go back in time")
    if len(timestamps):
        first, last = int(timestamps[0]), int(timestamps[-1])
        _require_plausible(first, last)
        if ends is not None and ends != (first, last):
            raise ValueError("its first and last timestamps differ from those in its footer")
    return timestamps


def _require_plausible(first: int, last: int) -> None:
    """ValueError for implausible times, which would make a conversion resample years."""
    if abs(first) > LATEST_NS or abs(last) > LATEST_NS:
        raise ValueError(f"its timestamps run to {last} ns, which is not a plausible time")
    if not 0 <= last - first <= LONGEST_NS:
        hours = (last - first) / 3.6e12
        raise ValueError(
            f"its timestamps span {hours:.0f} hours, expected at most {LONGEST_NS / 3.6e12:.0f}; "
            "a clock was set while it was recorded"
        )


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
    text = pa.types.is_string(array.type) or pa.types.is_large_string(array.type)
    if not (number or text or pa.types.is_boolean(array.type) or len(array) == 0):
        raise ValueError(f"its values are {printable(array.type)}, expected numbers or strings")
    return as_numpy(array)


class NumericSignal(Signal):
    """A parquet signal; length and ends come from the footer, columns are loaded on demand.

    EpisodeError, naming episode and signal, if the file is missing, damaged or not a signal.
    """

    kind = "numeric"

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._name = name

    def _reading(self) -> Any:
        return reading(self._path.parent, f"signal {self._name!r}", self._path)

    @cached_property
    def _footer(self) -> tuple[int, str | None, Ends | None]:
        with self._reading(), open_table(self._path, FOOTER) as table:
            return read_footer(table, TIMESTAMP)

    @cached_property
    def _timestamps(self) -> Times:
        _, column, ends = self._footer
        with self._reading():
            return read_timestamps(self._path, column, ends)

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
