from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from positronic.dataset.signal import Signal, time_steps, whole_ns


class InMemory(Signal):
    def __init__(self, times: list[int], values: list[float]) -> None:
        self._times = np.array(times, dtype=np.int64)
        self._values = np.array(values)

    def __len__(self) -> int:
        return len(self._times)

    def timestamps(self) -> NDArray[np.int64]:
        return self._times

    def take(self, indices: NDArray[np.int64]) -> Any:
        return self._values[indices]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._values.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return ()


@pytest.fixture
def signal() -> Signal:
    return InMemory([10, 20, 30, 40], [1.0, 2.0, 3.0, 4.0])


def samples(signal: Signal) -> list[tuple[float, int]]:
    return [(float(value), timestamp) for value, timestamp in signal]


def test_by_number(signal: Signal) -> None:
    assert signal[0] == (1.0, 10)
    assert signal[-1] == (4.0, 40)
    assert samples(signal[1:3]) == [(2.0, 20), (3.0, 30)]
    assert samples(signal[::2]) == [(1.0, 10), (3.0, 30)]
    assert samples(signal[[3, -4]]) == [(4.0, 40), (1.0, 10)]
    assert samples(signal[1:][1:][0:1]) == [(3.0, 30)]
    assert len(signal[[]]) == 0


@pytest.mark.parametrize("index", [4, -5, [0, 4]])
def test_by_number_out_of_range(signal: Signal, index: Any) -> None:
    with pytest.raises(IndexError, match="out of range"):
        signal[index]


@pytest.mark.parametrize("index", ["1", 1.0, [1.0], None, True])
def test_by_what_is_no_number(signal: Signal, index: Any) -> None:
    with pytest.raises(TypeError):
        signal[index]


def test_masks_and_backward_slices_are_refused(signal: Signal) -> None:
    with pytest.raises(IndexError, match="boolean mask"):
        signal[np.array([True, False, True, False])]
    with pytest.raises(ValueError, match="positive"):
        signal[::-1]


@pytest.mark.parametrize(
    ("time", "expected"),
    [(10, (1.0, 10)), (19, (1.0, 10)), (20, (2.0, 20)), (29.9, (2.0, 20)), (10**12, (4.0, 40))],
)
def test_value_at_a_time_is_the_last_before(
    signal: Signal, time: float, expected: tuple[float, int]
) -> None:
    assert signal.time[time] == expected


@pytest.mark.parametrize("key", [9, 9.99, [15, 9], np.array([9]), slice(5, 40, 10)])
def test_no_value_before_the_first_sample(signal: Signal, key: Any) -> None:
    with pytest.raises(KeyError, match="before the first sample, at 10"):
        signal.time[key]


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        (10, 30, [(1.0, 10), (2.0, 20)]),
        (20, 31, [(2.0, 20), (3.0, 30)]),
        (15, 31, [(1.0, 15), (2.0, 20), (3.0, 30)]),
        (5, 25, [(1.0, 10), (2.0, 20)]),
        (None, 25, [(1.0, 10), (2.0, 20)]),
        (25, None, [(2.0, 25), (3.0, 30), (4.0, 40)]),
        (None, None, [(1.0, 10), (2.0, 20), (3.0, 30), (4.0, 40)]),
        (12, 18, [(1.0, 12)]),
        (100, 200, [(4.0, 100)]),
        (1, 9, []),
        (20, 20, []),
    ],
)
def test_window_is_half_open_and_carries_back(
    signal: Signal, start: int | None, stop: int | None, expected: list[tuple[float, int]]
) -> None:
    window = signal.time[start:stop]
    assert samples(window) == expected
    if expected:
        assert (window.start_ts, window.last_ts) == (expected[0][1], expected[-1][1])


def test_window_of_a_window(signal: Signal) -> None:
    assert samples(signal.time[15:35].time[17:30]) == [(1.0, 17), (2.0, 20)]


def test_window_leaves_its_source_alone(signal: Signal) -> None:
    signal.time[15:35].timestamps()
    assert signal.timestamps().tolist() == [10, 20, 30, 40]


def test_steps(signal: Signal) -> None:
    assert samples(signal.time[10:40:10]) == [(1.0, 10), (2.0, 20), (3.0, 30)]
    assert samples(signal.time[12::14]) == [(1.0, 12), (2.0, 26), (4.0, 40)]
    assert samples(signal.time[35:60:10]) == [(3.0, 35), (4.0, 45), (4.0, 55)]


def test_steps_need_a_start_and_go_forward(signal: Signal) -> None:
    with pytest.raises(ValueError, match="start"):
        signal.time[:40:10]
    with pytest.raises(ValueError, match="positive"):
        signal.time[10:40:-10]


def test_arbitrary_times_keep_the_times_asked_for(signal: Signal) -> None:
    assert samples(signal.time[[39, 15, 15]]) == [(3.0, 39), (1.0, 15), (1.0, 15)]
    assert samples(signal.time[np.array([10.0, 20.5])]) == [(1.0, 10), (2.0, 20)]
    assert samples(signal.time[[]]) == []


@pytest.mark.parametrize("key", ["1", None, ["a"], [True]])
def test_times_are_numbers(signal: Signal, key: Any) -> None:
    with pytest.raises(TypeError):
        signal.time[key]


def test_search(signal: Signal) -> None:
    assert signal.search([9, 10, 15, 40, 99]).tolist() == [-1, 0, 0, 3, 3]


def test_empty_signal() -> None:
    empty = InMemory([], [])
    assert len(empty.time[0:10]) == 0
    assert len(empty.time[0:10:1]) == 0
    assert empty.search([5]).tolist() == [-1]
    with pytest.raises(KeyError):
        empty.time[5]
    with pytest.raises(ValueError, match="empty"):
        _ = empty.start_ts


def test_epoch_times_are_exact_to_the_nanosecond() -> None:
    epoch = 1_795_142_623_605_815_325  # odd: float64 could not tell it from its neighbours
    signal = InMemory([epoch, epoch + 1, epoch + 2], [0.0, 1.0, 2.0])
    assert signal.time[epoch + 1] == (1.0, epoch + 1)
    assert [t - epoch for _, t in signal.time[epoch : epoch + 3 : 1]] == [0, 1, 2]
    assert [t - epoch for _, t in signal.time[epoch + 1 : epoch + 3]] == [1, 2]


def test_a_time_just_before_zero_is_before_zero() -> None:
    signal = InMemory([0, 1], [0.0, 1.0])
    with pytest.raises(KeyError):
        signal.time[-0.5]


def test_fractional_steps_do_not_drift() -> None:
    times = time_steps(0, 10**9, 1e9 / 15)
    assert times.tolist() == [i * 10**9 // 15 for i in range(15)]
    epoch = 1_795_142_623_605_815_325
    late = time_steps(epoch, epoch + 3600 * 10**9, 1e9 / 15)
    assert len(late) == 54_000
    assert late[-1] - epoch == pytest.approx(53_999 * 1e9 / 15, abs=1)


@pytest.mark.parametrize("time", [float("nan"), float("inf"), -float("inf"), 1e19, 2**63])
def test_a_time_that_int64_does_not_have_is_refused(time: float) -> None:
    with pytest.raises(ValueError, match="finite number of nanoseconds"):
        whole_ns([time])
