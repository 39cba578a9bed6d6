"""Quality measures of motion: of one episode's numeric signals, sampled on a common clock.

Series are ``(T, n)`` at `RATE_HZ`. Each function returns one number, NaN where it does not apply.
"""

import numpy as np
from numpy.typing import NDArray

from positronic.dataset.signal import Signal
from positronic.geom import quat_dot

RATE_HZ = 50.0
# Searched for the lag between command and measurement, in seconds.
LONGEST_LAG_S = 1.0
# Share of the usual speed below which the robot stands still.
STILL = 0.05

type Series = NDArray[np.float64]


def resampled(signal: Signal, start_ns: int, stop_ns: int) -> Series:
    """Sample a numeric signal at `RATE_HZ` between two times, interpolated linearly, ``(T, n)``."""
    times = (signal.timestamps() - start_ns) / 1e9
    values = np.asarray(signal.values(), dtype=np.float64).reshape(len(times), -1)
    grid = np.arange(0.0, max((stop_ns - start_ns) / 1e9, 1 / RATE_HZ), 1 / RATE_HZ)
    return np.stack([np.interp(grid, times, column) for column in values.T], axis=1)


def idle_share(position: Series) -> float:
    """Share of time at less than `STILL` of the 95th percentile of the speed."""
    speed = _speed(position)
    if not len(speed) or not speed.max():
        return 1.0
    return float(np.mean(speed < STILL * np.percentile(speed, 95)))


def fast_speed(position: Series) -> float:
    """95th percentile of the speed, in the signal's unit per second."""
    speed = _speed(position)
    return float(np.percentile(speed, 95)) if len(speed) else float("nan")


def path_length(position: Series) -> float:
    """Length of the path, in the signal's unit."""
    return float(_speed(position).sum() / RATE_HZ)


def jerk(position: Series) -> float:
    """Log dimensionless jerk: ln of the squared jerk's integral times duration^5 / length^2.

    Smoother motions have smaller values, whatever their size and duration. Source: N. Hogan and D.
    Sternad, "Sensitivity of smoothness measures to movement duration, amplitude, and arrests",
    Journal of Motor Behavior 41 (2009).
    """
    length, duration = path_length(position), len(position) / RATE_HZ
    if len(position) < 8 or length <= 0:
        return float("nan")
    third = np.diff(position, 3, axis=0) * RATE_HZ**3
    squared = float((third**2).sum() / RATE_HZ)
    return float(np.log(max(squared, 1e-12) * duration**5 / length**2))


def saturation(series: Series) -> float:
    """Largest share of time that an element rests at its own extreme while others move."""
    moving = _speed(series) > 0
    worst = 0.0
    for column in series.T:
        low, high = column.min(), column.max()
        if high - low <= 1e-9:
            continue
        near = (np.abs(column - low) < 1e-6) | (np.abs(column - high) < 1e-6)
        worst = max(worst, float(np.mean(near[1:] & near[:-1] & moving)))
    return worst


def lag(command: Series, measured: Series) -> float:
    """Seconds by which the measurement follows the command: the best correlation of velocities."""
    ours, theirs = np.diff(command, axis=0), np.diff(measured, axis=0)
    most = min(int(LONGEST_LAG_S * RATE_HZ), len(ours) // 3)
    if most < 1 or not ours.any() or not theirs.any():
        return float("nan")
    found = [_correlation(ours, theirs, shift) for shift in range(-most, most + 1)]
    return (int(np.argmax(found)) - most) / RATE_HZ


def offset(command: Series, measured: Series, lag_s: float) -> float:
    """Median distance of measurement and command after the lag, in the signal's unit."""
    ours, theirs = _shifted(command, measured, lag_s)
    return float(np.median(np.linalg.norm(ours - theirs, axis=1)))


def turn(command: Series, measured: Series, lag_s: float) -> float:
    """Median angle between commanded and measured rotation after the lag, in degrees.

    Args:
        command: unit quaternions ``(T, 4)``.
        measured: likewise.
        lag_s: of the measurement.
    """
    ours, theirs = _shifted(command, measured, lag_s)
    ours, theirs = (q / np.linalg.norm(q, axis=1, keepdims=True) for q in (ours, theirs))
    cosine = np.clip(np.abs(quat_dot(ours, theirs)), 0, 1)
    return float(np.degrees(np.median(2 * np.arccos(cosine))))


def agreement(command: Series, measured: Series) -> float:
    """Best correlation of command and measurement over all lags, -1 to 1."""
    ours, theirs = command - command.mean(axis=0), measured - measured.mean(axis=0)
    scale = float(np.linalg.norm(ours) * np.linalg.norm(theirs))
    if scale < 1e-9:
        return float("nan")
    most = min(int(LONGEST_LAG_S * RATE_HZ), len(ours) // 3)
    sums = [float((a * b).sum()) for a, b in (_pair(ours, theirs, s) for s in range(most + 1))]
    return max(sums, key=abs) / scale


def gap(times_ns: NDArray[np.int64]) -> float:
    """Longest time between two samples, in units of the median one."""
    steps = np.diff(times_ns)
    return float(steps.max() / max(np.median(steps), 1)) if len(steps) else float("nan")


def _speed(position: Series) -> NDArray[np.float64]:
    speed: NDArray[np.float64] = np.linalg.norm(np.diff(position, axis=0), axis=1) * RATE_HZ
    return speed


def _pair(ours: Series, theirs: Series, shift: int) -> tuple[Series, Series]:
    """``ours`` at each time, and ``theirs`` ``shift`` samples later."""
    if shift >= 0:
        return ours[: len(ours) - shift], theirs[shift:]
    return ours[-shift:], theirs[:shift]


def _correlation(ours: Series, theirs: Series, shift: int) -> float:
    a, b = _pair(ours, theirs, shift)
    scale = np.linalg.norm(a) * np.linalg.norm(b)
    return float((a * b).sum() / scale) if scale > 0 else 0.0


def _shifted(command: Series, measured: Series, lag_s: float) -> tuple[Series, Series]:
    return _pair(command, measured, 0 if np.isnan(lag_s) else round(lag_s * RATE_HZ))
