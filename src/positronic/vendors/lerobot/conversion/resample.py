"""Resample signals of different rates to rows at a fixed rate.

Row ``i`` of an episode is at ``start + floor(i * 1e9 / fps)`` ns, in integer arithmetic. The public
converter steps by ``1e9 / fps`` truncated to nanoseconds (66 666 666 at 15 per second), so its rows
drift ahead of a recording of the same rate, fall just before the intended sample, and read the
previous one.

Each signal gives its last sample at or before the row. ``start`` is the first time at which every
needed signal has a value; the rows end with the last sample of any of them. So the observation
after the last command is kept, and its action is the last command again.

Gaps are filled in the same way, since a command holds until the next one. Gaps caused by a clock
that was set, or by two clocks that disagree, are rejected: they would give an episode of years.
Also rejected are a signal that ends before the episode starts or hardly changes its timestamps in
it, and rows that are not finite.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from positronic.dataset import Episode, Signal
from positronic.errors import EpisodeError

SECOND = 10**9

# Recorders and rows both round times to nanoseconds, relative to different starts: the sample of a
# row may be one nanosecond after it.
ROUNDING_NS = 1

# A robot does not stand still for this long within an episode.
HOUR_NS = 3600 * SECOND
LONGEST_GAP_NS = HOUR_NS

# Up to so many samples may be held for a whole episode.
FEW, MANY = 3, 10
# Microseconds misread as nanoseconds span a thousandth of the episode.
CLOCK_RATIO = 500


def row_times(start_ts: int, last_ts: int, fps: int) -> NDArray[np.int64]:
    """Times of the rows in ns, int64 ``(T,)``: from ``start_ts`` to ``last_ts``, both included."""
    count = -(-(last_ts - start_ts + 1) * fps // SECOND)
    return start_ts + np.arange(count, dtype=np.int64) * SECOND // fps


def require_signals(episode: Episode, names: Iterable[str]) -> None:
    """Check that an episode has the signals ``names``; EpisodeError if not."""
    missing = [name for name in names if name not in episode.signals]
    if missing:
        present = ", ".join(episode.signals) or "none"
        raise EpisodeError(f"has no signal {', '.join(missing)}; its signals are {present}")


def sample(episode: Episode, names: Iterable[str], fps: int) -> dict[str, Any]:
    """The signals ``names`` of an episode as columns at ``fps`` rows per second.

    Returns:
        For each name an array ``(T, ...)``, or for video a lazy sequence of ``T`` images.

    Raises:
        EpisodeError: a signal is missing, empty or unreadable, has NaN, or its clock differs from
            that of the others; or there are fewer than two rows.
    """
    names = list(names)
    require_signals(episode, names)
    signals = {name: episode.signals[name] for name in names}
    empty = [name for name, signal in signals.items() if len(signal) == 0]
    if empty:
        raise EpisodeError(f"has no samples of {', '.join(empty)}")
    start = max(signal.start_ts for signal in signals.values())
    last = max(signal.last_ts for signal in signals.values())
    _check_clocks(signals, start, last)
    times = row_times(start, last, fps)
    if len(times) < 2:
        raise EpisodeError(
            f"is shorter than a frame: all signals have values for {(last - start) / 1e6:.1f} ms,"
            f" a frame at {fps} fps takes {1000 / fps:.1f} ms"
        )
    columns = {name: signal.time[times + ROUNDING_NS].values() for name, signal in signals.items()}
    for name, values in columns.items():
        _check_numbers(name, values, fps)
    return columns


def _check_clocks(signals: Mapping[str, Signal], start: int, last: int) -> None:
    for name, signal in signals.items():
        if signal.kind == "video" and signal.last_ts < start:
            raise EpisodeError(
                f"its {name} ends {(start - signal.last_ts) / SECOND:.1f} s before all signals have"
                " values, so the episode has no image; are the clocks the same?"
            )
    if any(last - signal.start_ts > LONGEST_GAP_NS for signal in signals.values()):
        _check_gaps(signals, start, last)
    for name, signal in signals.items():
        _check_span(name, signal, start, last)


def _check_gaps(signals: Mapping[str, Signal], start: int, last: int) -> None:
    limit = f"expected at most {LONGEST_GAP_NS // HOUR_NS} h"
    for name, signal in signals.items():
        shown = signal.timestamps()[max(0, int(signal.search(start)[0])) :]
        gap = int(np.diff(shown).max(initial=0))
        if gap > LONGEST_GAP_NS:
            raise EpisodeError(
                f"its {name} has no sample for {gap / HOUR_NS:.1f} h, {limit};"
                " was the clock set during the recording?"
            )
    for name, signal in signals.items():
        if last - signal.last_ts > LONGEST_GAP_NS:
            raise EpisodeError(
                f"its {name} ends {(last - signal.last_ts) / HOUR_NS:.1f} h before the last sample"
                f" of all, {limit}; are the clocks the same?"
            )


def _check_span(name: str, signal: Signal, start: int, last: int) -> None:
    """Reject a signal that would be constant in the rows because of its clock.

    A few samples are allowed: a fixed position, a command that holds.
    """
    count, span = len(signal), signal.last_ts - signal.start_ts
    if count > FEW and signal.last_ts < start:
        raise EpisodeError(
            f"its {name} has {count} samples, and all of them end"
            f" {(start - signal.last_ts) / SECOND:.1f} s before all signals have values, so its"
            " last one would be in every row; are the clocks the same?"
        )
    if (count > FEW and span == 0) or (count > MANY and span * CLOCK_RATIO < last - start):
        raise EpisodeError(
            f"its {name} has {count} samples within {span / SECOND:.6f} s of an episode of"
            f" {(last - start) / SECOND:.1f} s, so its last one would be in nearly every row; are"
            " its times in nanoseconds?"
        )


def _check_numbers(name: str, values: Any, fps: int) -> None:
    if not isinstance(values, np.ndarray) or not np.issubdtype(values.dtype, np.floating):
        return
    wrong = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if wrong.any():
        row = int(wrong.argmax())
        raise EpisodeError(
            f"its {name} holds NaN or infinity at {row / fps:.2f} s (row {row}),"
            f" in {int(wrong.sum())} of {len(values)} rows"
        )
