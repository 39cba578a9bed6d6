from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from positronic.dataset import DatasetWriter, LocalDataset
from positronic.errors import EpisodeError
from positronic.vendors.lerobot.conversion.resample import row_times, sample
from tests.positronic.vendors.lerobot.raw import record


def test_rows_do_not_creep_away_from_the_recording() -> None:
    recorded = np.arange(10_000, dtype=np.int64) * 10**9 // 15
    np.testing.assert_array_equal(row_times(0, int(recorded[-1]), 15), recorded)


@pytest.mark.parametrize(
    ("start", "last", "fps", "expected"),
    [
        (5, 5, 15, [5]),
        (0, 10**9, 1, [0, 10**9]),
        (0, 10**9 - 1, 1, [0]),
        (7, 7 + 66_666_666, 15, [7, 7 + 66_666_666]),
        (7, 6 + 66_666_666, 15, [7]),
        (0, 100, 10**9, list(range(101))),
    ],
)
def test_rows_reach_the_last_sample(start: int, last: int, fps: int, expected: list[int]) -> None:
    assert row_times(start, last, fps).tolist() == expected


@pytest.mark.parametrize("start", range(16))
def test_each_row_of_a_recording_at_the_same_rate_is_its_own_sample(
    tmp_path: Path, start: int
) -> None:
    # Wherever in the second a recording begins, rounding must not make a row read its predecessor.
    root = tmp_path
    record(root, 0, size=None, start=start, steps=40)
    episode = LocalDataset(root)[0]
    columns = sample(episode, ["robot_state.ee_pose", "robot_commands.pose"], 15)
    poses = episode["robot_state.ee_pose"].values()
    np.testing.assert_array_equal(columns["robot_state.ee_pose"], poses)
    commands = episode["robot_commands.pose"].values()
    np.testing.assert_array_equal(columns["robot_commands.pose"][:-1], commands)
    # After the last command the last command holds.
    np.testing.assert_array_equal(columns["robot_commands.pose"][-1], commands[-1])


def test_signals_of_different_rates_meet_from_the_latest_start(tmp_path: Path) -> None:
    ms = 10**6
    with DatasetWriter(tmp_path).new_episode() as episode:
        for i in range(500):
            episode.append("fast", float(i), i * 2 * ms)
        for i in range(10):
            episode.append("slow", float(i), 30 * ms + i * 100 * ms)
        episode.append("unneeded", 1.0, 900 * ms)
    columns = sample(LocalDataset(tmp_path)[0], ["fast", "slow"], 10)
    # Rows at 30, 130, ... up to the last sample of all, fast's at 998 ms; slow's last is at 930.
    np.testing.assert_array_equal(columns["fast"], 15.0 + 50 * np.arange(10))
    np.testing.assert_array_equal(columns["slow"], np.arange(10.0))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["grip", "nothing"], "has no signal nothing; its signals are grip"),
        (["grip"], "shorter than a frame: .* 20.0 ms, a frame at 15 fps takes 66.7 ms"),
    ],
)
def test_what_cannot_be_sampled_is_refused(tmp_path: Path, names: list[str], message: str) -> None:
    with DatasetWriter(tmp_path).new_episode() as episode:
        episode.append("grip", 1.0, 0)
        episode.append("grip", 1.0, 20 * 10**6)
    with pytest.raises(EpisodeError, match=message):
        sample(LocalDataset(tmp_path)[0], names, 15)


@pytest.mark.parametrize(
    ("seconds", "message"),
    [
        ({"grip": [0, 1, 4200], "force": [0, 1]}, "its grip has no sample for 1.2 h, .* at most 1"),
        ({"grip": [0, 1], "force": [0, 1, 4000]}, "its force has no sample for 1.1 h"),
        ({"grip": [0, 1], "force": [7200, 7201]}, "its grip ends 2.0 h before the last sample"),
    ],
)
def test_clocks_that_disagree_are_refused_before_there_are_rows_for_years(
    tmp_path: Path, seconds: dict[str, list[int]], message: str
) -> None:
    with DatasetWriter(tmp_path).new_episode() as episode:
        for name, stamps in seconds.items():
            for stamp in stamps:
                episode.append(name, 1.0, stamp * 10**9)
    with pytest.raises(EpisodeError, match=message):
        sample(LocalDataset(tmp_path)[0], list(seconds), 15)


def test_a_row_without_a_number_is_refused(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path).new_episode() as episode:
        for i in range(30):
            episode.append("grip", float("nan") if i in (7, 20) else 1.0, i * 10**9 // 15)
    message = r"its grip holds NaN or infinity at 0.47 s \(row 7\), in 2 of 30 rows"
    with pytest.raises(EpisodeError, match=message):
        sample(LocalDataset(tmp_path)[0], ["grip"], 15)


def recorded(root: Path, arm: list[int], grip: list[int]) -> LocalDataset:
    with DatasetWriter(root).new_episode() as episode:
        for value, time in enumerate(arm):
            episode.append("arm", float(value), time)
        for value, time in enumerate(grip):
            episode.append("grip", float(value), time)
    return LocalDataset(root)


TICKS = [step * 10**9 // 15 for step in range(150)]
APART = "all of them end 2.1 s before all signals have values.*are the clocks the same"
STILL = "would be in nearly every row; are its times in nanoseconds"


@pytest.mark.parametrize(
    ("arm", "told"),
    [
        ([time - 12 * 10**9 for time in TICKS], APART),
        ([time // 1000 for time in TICKS], STILL),
        ([time // 10**6 for time in TICKS], STILL),
    ],
    ids=["before the others", "microseconds", "milliseconds"],
)
def test_a_signal_that_would_stand_still_is_refused(
    tmp_path: Path, arm: list[int], told: str
) -> None:
    """Its last value stood in every row, and nothing showed it."""
    with pytest.raises(EpisodeError, match=f"its arm has .*{told}"):
        sample(recorded(tmp_path, sorted(set(arm)), TICKS)[0], ["arm", "grip"], 15)


def test_samples_of_one_time_are_refused(tmp_path: Path) -> None:
    dataset = recorded(tmp_path, [0, 1, 2, 3], TICKS)
    (file,) = tmp_path.rglob("arm.parquet")
    table = pq.read_table(file)
    pq.write_table(table.set_column(0, "timestamp", pa.array([0] * 4)), file)
    with pytest.raises(EpisodeError, match=f"its arm has 4 samples within 0.* {STILL}"):
        sample(dataset[0], ["arm", "grip"], 15)


@pytest.mark.parametrize(
    "arm",
    [[0], [0, 1, 2], [step * 10**8 for step in range(5)]],
    ids=["a place that stays", "a command at the beginning", "ends early"],
)
def test_a_few_samples_may_hold_for_all_of_an_episode(tmp_path: Path, arm: list[int]) -> None:
    columns = sample(recorded(tmp_path, arm, TICKS)[0], ["arm", "grip"], 15)
    assert columns["arm"][-1] == len(arm) - 1
