"""Episode: the signals and static values of one recording, by name."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, override

import numpy as np

from foundation.text import printable
from positronic.dataset.signal import Signal, time_steps, whole_ns


class Episode(Mapping[str, Any]):
    """A mapping of names to signals (time series) and static values.

    ``ep["task"]`` is the value, ``ep["grip"]`` the :class:`Signal`. Everything is read on demand.
    A subclass provides ``signals``, ``static`` and ``meta``.
    """

    @property
    @abstractmethod
    def signals(self) -> Mapping[str, Signal]:
        """The signals by name."""

    @property
    @abstractmethod
    def static(self) -> Mapping[str, Any]:
        """Values that hold for the whole episode, by name (JSON types, and bytes)."""

    @property
    @abstractmethod
    def meta(self) -> dict[str, Any]:
        """Metadata of the recording: schema version, time of creation, writer, path, size."""

    def prefetch(self, names: Iterable[str]) -> None:
        """Fetch the files of these signals to this machine, several at once.

        Unknown names are ignored. Without this call each file is fetched at its first read.
        """

    def __getitem__(self, name: str) -> Any:
        """The signal or static value of this name; KeyError lists the names there are."""
        signals = self.signals
        if name in signals:
            return signals[name]
        static = self.static
        if name in static:
            return static[name]
        there = printable(", ".join(self), 1000)
        raise KeyError(f"{name!r} is not in this episode, which has {there}")

    def __iter__(self) -> Iterator[str]:
        """Names of the signals, then of the static values."""
        signals = self.signals
        yield from signals
        yield from (name for name in self.static if name not in signals)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __eq__(self, other: object) -> bool:
        """Identity: comparing contents would read every file."""
        return self is other

    __hash__ = object.__hash__

    @property
    def uid(self) -> str:
        """Identifier of the recording; stable when files are moved or copied."""
        meta = self.meta
        return str(meta.get("uid") or f"ts-{meta.get('created_ts_ns', 0)}")

    @property
    def start_ts(self) -> int:
        """The first time in ns at which every signal has a value: the latest first sample."""
        return max(self._ends("start_ts"))

    @property
    def last_ts(self) -> int:
        """The latest last sample in ns; signals that ended earlier keep their last value."""
        return max(self._ends("last_ts"))

    @property
    def duration_ns(self) -> int:
        """``last_ts - start_ts``, 0 without signals."""
        return self.last_ts - self.start_ts if self.signals else 0

    def _ends(self, end: str) -> list[int]:
        if not self.signals:
            raise ValueError("the episode has no signals, so it has no start and end")
        return [getattr(signal, end) for signal in self.signals.values()]

    @property
    def time(self) -> "EpisodeTime":
        """All signals sampled at the same times."""
        return EpisodeTime(self)


class EpisodeView(Episode):
    """Wrapper around an episode; subclasses override parts of it."""

    def __init__(self, source: Episode) -> None:
        self.source = source

    @property
    @override
    def signals(self) -> Mapping[str, Signal]:
        return self.source.signals

    @property
    @override
    def static(self) -> Mapping[str, Any]:
        return self.source.static

    @property
    @override
    def meta(self) -> dict[str, Any]:
        return self.source.meta

    @property
    @override
    def uid(self) -> str:
        return self.source.uid

    @override
    def prefetch(self, names: Iterable[str]) -> None:
        self.source.prefetch(names)


class EpisodeTime:
    """``episode.time[...]``: a dict of the static values and of every signal's value, by name.

    - ``time[t]``: each signal's value at ``t`` ns.
    - ``time[a:b:step]``, ``time[[t0, t1]]``: each signal's values at these times, an array
      ``(n, *shape)`` or for video a lazy sequence. ``a`` and ``b`` default to the episode's ends.

    KeyError where a signal has no value yet. A window without a step is refused, as the signals'
    own sample times differ.
    """

    def __init__(self, episode: Episode) -> None:
        self._episode = episode

    def __getitem__(self, key: Any) -> dict[str, Any]:
        """Sample every signal; see the class."""
        episode = self._episode
        if isinstance(key, slice):
            if key.step is None:
                raise KeyError("episode.time[a:b] needs a step: episode.time[a:b:step]")
            if key.step <= 0:
                raise ValueError(f"the step of a time slice must be positive, got {key.step}")
            start = episode.start_ts if key.start is None else key.start
            stop = episode.last_ts + 1 if key.stop is None else key.stop
            times: Any = time_steps(start, stop, key.step)
        elif isinstance(key, Sequence | np.ndarray) and not isinstance(key, str | bytes):
            times = whole_ns(key)
        else:
            return self._sample(lambda signal: signal.time[key][0])
        return self._sample(lambda signal: signal.time[times].values())

    def _sample(self, read: Any) -> dict[str, Any]:
        row = dict(self._episode.static)
        for name, signal in self._episode.signals.items():
            try:
                row[name] = read(signal)
            except KeyError as error:
                raise KeyError(f"signal {name!r}: {error.args[0]}") from error
        return row
