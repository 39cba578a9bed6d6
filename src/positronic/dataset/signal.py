"""Signal: one time series as a step function of time.

A signal is a sequence of samples ``(value, timestamp)`` whose timestamps (integer nanoseconds)
increase strictly. Between two samples it keeps the earlier value (zero-order hold): *the value at
t* is that of the last sample at or before ``t``; before the first sample it is undefined. The
signals of an episode have different rates; this rule puts them on one time line.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Literal, overload, override

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.int64]
Indices = NDArray[np.int64]


def whole_ns(times: Any) -> Times:
    """Timestamps as int64 ``(n,)``, fractions rounded down.

    Exact, because ``sample <= t`` and ``sample <= floor(t)`` are the same for integer samples,
    whereas comparing in float64 would be off by hundreds of nanoseconds for present-day timestamps.
    TypeError for anything but real numbers, ValueError for NaN and numbers out of int64's range,
    which a cast would silently change.
    """
    array = np.atleast_1d(np.asarray(times))
    if array.size == 0:
        return np.zeros(0, dtype=np.int64)
    if np.issubdtype(array.dtype, np.floating):
        array = np.floor(array)
    elif not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"a time is a number of nanoseconds, got {array.dtype}")
    if array.dtype != np.int64 and not bool(np.all((array >= -(2.0**63)) & (array < 2.0**63))):
        raise ValueError("a time is a finite number of nanoseconds below 2**63")
    return np.asarray(array, dtype=np.int64)


def whole_indices(selection: Any, length: int) -> Indices:
    """Sample numbers ``(n,)`` that a slice or a list of integers selects of ``length`` samples.

    Negative numbers count from the end. IndexError out of range; boolean masks and backward
    slices are rejected, since a view of a signal has to go forward in time.
    """
    if isinstance(selection, slice):
        if selection.step is not None and selection.step <= 0:
            raise ValueError(f"the step of a signal slice must be positive, got {selection.step}")
        return np.arange(*selection.indices(length), dtype=np.int64)
    array = np.asarray(selection)
    if array.size == 0:
        return np.zeros(0, dtype=np.int64)
    if array.dtype == np.bool_:
        raise IndexError("a signal is not indexed by a boolean mask; pass np.flatnonzero(mask)")
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"a signal is indexed by integers, got {array.dtype}")
    indices = array.astype(np.int64)
    indices = np.where(indices < 0, indices + length, indices)
    if bool(np.any((indices < 0) | (indices >= length))):
        raise IndexError(f"index out of range for a signal of {length} samples")
    return indices


class Signal(ABC):
    """One time series; ``len(s)`` samples, ``s[i]`` is ``(value, timestamp_ns)``.

    ``s[a:b]`` and ``s[[i, j]]`` are lazy views, which are signals too. A subclass
    provides ``__len__``, ``timestamps``, ``take``, ``dtype`` and ``shape``.
    """

    kind: Literal["numeric", "video"] = "numeric"

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def timestamps(self) -> Times:
        """All timestamps, int64 ``(n,)``, nanoseconds; do not write to the array."""

    @abstractmethod
    def take(self, indices: Indices) -> Any:
        """Values of the samples ``indices`` (valid, not negative): an array or a lazy sequence."""

    @property
    @abstractmethod
    def dtype(self) -> np.dtype[Any]:
        """Data type of one value's elements."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of one value: ``()``, ``(n,)`` or ``(height, width, 3)``."""

    @property
    def start_ts(self) -> int:
        """Timestamp of the first sample in ns; ValueError for an empty signal."""
        return self._timestamp_at(0)

    @property
    def last_ts(self) -> int:
        """Timestamp of the last sample in ns; ValueError for an empty signal."""
        return self._timestamp_at(-1)

    def _timestamp_at(self, index: int) -> int:
        if len(self) == 0:
            raise ValueError("the signal is empty: it has no first and no last sample")
        return int(self.timestamps()[index])

    def values(self) -> Any:
        """All values: an array ``(n, *shape)``, or for video a sequence that decodes lazily."""
        return self.take(np.arange(len(self), dtype=np.int64))

    def search(self, times: Any) -> Indices:
        """Index of the last sample at or before each of ``times``, -1 before the first."""
        found = np.searchsorted(self.timestamps(), whole_ns(times), side="right") - 1
        return found.astype(np.int64)

    @property
    def time(self) -> "TimeIndexer":
        """Access by time instead of by sample number."""
        return TimeIndexer(self)

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> tuple[Any, int]: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | NDArray[Any]) -> "Signal": ...

    def __getitem__(self, index: Any) -> Any:
        """Sample ``(value, timestamp)`` at an integer, a view for a slice or many integers."""
        if isinstance(index, int | np.integer) and not isinstance(index, bool):
            i = whole_indices([index], len(self))
            return self.take(i)[0], int(self.timestamps()[i[0]])
        if isinstance(index, slice | Sequence | np.ndarray) and not isinstance(index, str | bytes):
            return SignalView(self, whole_indices(index, len(self)))
        raise TypeError(f"a signal is indexed by integers, got {type(index).__name__}")

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        """Samples in order."""
        for value, timestamp in zip(self.values(), self.timestamps(), strict=True):
            yield value, int(timestamp)


class SignalView(Signal):
    """Selected samples of a signal, with their own or with the requested timestamps."""

    def __init__(self, source: Signal, indices: Indices, timestamps: Times | None = None) -> None:
        self._source = source
        self._indices = indices
        self._timestamps = timestamps
        self.kind = source.kind

    def __len__(self) -> int:
        return len(self._indices)

    @override
    def timestamps(self) -> Times:
        if self._timestamps is None:
            self._timestamps = self._source.timestamps()[self._indices]
        return self._timestamps

    @override
    def take(self, indices: Indices) -> Any:
        return self._source.take(self._indices[indices])

    @property
    @override
    def dtype(self) -> np.dtype[Any]:
        return self._source.dtype

    @property
    @override
    def shape(self) -> tuple[int, ...]:
        return self._source.shape


class TimeIndexer:
    """``signal.time[...]``: the signal read by time, all times in ns.

    - ``time[t]`` is ``(value, timestamp)`` of the last sample at or before ``t``.
    - ``time[a:b]`` is a view of the half-open window; where ``a`` falls between two samples, the
      first sample of the view has the value held at ``a``, with the timestamp ``a``.
    - ``time[a:b:step]`` is a view with timestamps ``a, a + step, ...`` below ``b``.
    - ``time[[t0, t1]]`` is a view with exactly these timestamps.

    KeyError for a time before the first sample; a window without a step starts later instead.
    """

    def __init__(self, signal: Signal) -> None:
        self._signal = signal

    @overload
    def __getitem__(self, key: float | np.number[Any]) -> tuple[Any, int]: ...
    @overload
    def __getitem__(self, key: slice | Sequence[float] | NDArray[Any]) -> Signal: ...

    def __getitem__(self, key: Any) -> Any:
        """Read at a time, in a window, or at many times; see the class."""
        if isinstance(key, slice):
            return self._window(key) if key.step is None else self._at(self._steps(key))
        if isinstance(key, int | float | np.number) and not isinstance(key, bool):
            index = self._present(whole_ns(key))
            return self._signal.take(index)[0], int(self._signal.timestamps()[index[0]])
        if isinstance(key, Sequence | np.ndarray) and not isinstance(key, str | bytes):
            return self._at(whole_ns(key))
        raise TypeError(f"a time is a number of nanoseconds, got {type(key).__name__}")

    def _present(self, times: Times) -> Indices:
        indices = self._signal.search(times)
        if bool(np.any(indices < 0)):
            early = int(times[np.argmax(indices < 0)])
            first = f"the first sample, at {self._signal.start_ts}" if len(self._signal) else "any"
            raise KeyError(f"time {early} ns comes before {first}: the signal has no value yet")
        return indices

    def _at(self, times: Times) -> Signal:
        return SignalView(self._signal, self._present(times), times)

    def _steps(self, key: slice) -> Times:
        if key.step <= 0:
            raise ValueError(f"the step of a time slice must be positive, got {key.step}")
        if key.start is None:
            raise ValueError("a time slice with a step needs a start")
        if len(self._signal) == 0:
            return np.zeros(0, dtype=np.int64)
        stop = self._signal.last_ts + 1 if key.stop is None else key.stop
        return time_steps(key.start, stop, key.step)

    def _window(self, key: slice) -> Signal:
        if len(self._signal) == 0:
            return self._signal[:]
        timestamps = self._signal.timestamps()
        start = timestamps[0] if key.start is None else int(np.ceil(key.start))
        stop = timestamps[-1] + 1 if key.stop is None else int(np.ceil(key.stop))
        if stop <= start:
            return self._signal[:0]
        first, end = (int(i) for i in np.searchsorted(timestamps, [start, stop], side="left"))
        carried = first > 0 and (first == len(timestamps) or timestamps[first] > start)
        if not carried:
            return self._signal[first:end]
        view = np.arange(first - 1, end, dtype=np.int64)
        times = timestamps[view].copy()
        times[0] = start
        return SignalView(self._signal, view, times)


def time_steps(start: float, stop: float, step: float) -> Times:
    """Times ``start + i * step`` below ``stop``, each rounded down to whole nanoseconds.

    Offsets are computed relative to ``start``, so a step such as ``1e9 / 15`` stays exact to the
    nanosecond however large ``start`` is.
    """
    origin = int(np.floor(start))
    count = max(0, int(np.ceil((stop - start) / step)))
    if isinstance(step, int | np.integer):
        offsets: Times = np.arange(count, dtype=np.int64) * int(step)
    else:
        offsets = np.floor(np.arange(count) * step).astype(np.int64)
    times: Times = np.add(origin, offsets)
    return times[times < stop]  # the division above may round up to one step too many
