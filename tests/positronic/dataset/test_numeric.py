from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from positronic.dataset.numeric import NumericSignal
from positronic.errors import EpisodeError

VALUES = np.random.default_rng(0).random(99)


def write(path: Path, *, rows: int = 50, group: int = 20, **columns: object) -> None:
    table = {"timestamp": np.arange(rows) * 10, "value": np.arange(rows, dtype=np.float64)}
    pq.write_table(pa.table(table | columns), path, row_group_size=group)


def test_ends_and_length_come_from_the_footer_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "s.parquet")
    monkeypatch.setattr("positronic.dataset.numeric.read_column", None)
    signal = NumericSignal(tmp_path / "s.parquet", "s")
    assert (len(signal), signal.start_ts, signal.last_ts) == (50, 0, 490)


def test_without_statistics_the_column_is_read(tmp_path: Path) -> None:
    table = pa.table({"timestamp": [5, 7], "value": [1, 2]})
    pq.write_table(table, tmp_path / "s.parquet", write_statistics=False)
    signal = NumericSignal(tmp_path / "s.parquet", "s")
    assert (len(signal), signal.start_ts, signal.last_ts) == (2, 5, 7)


def test_scalars_and_vectors(tmp_path: Path) -> None:
    rows = np.arange(14, dtype=np.float32).reshape(2, 7)
    table = pa.table({"timestamp": [0, 1], "value": pa.array(list(rows))})
    pq.write_table(table, tmp_path / "v.parquet")
    vector = NumericSignal(tmp_path / "v.parquet", "v")
    assert vector.kind == "numeric"
    assert (vector.dtype, vector.shape) == (np.dtype(np.float32), (7,))
    np.testing.assert_array_equal(vector.values(), rows)
    np.testing.assert_array_equal(vector[1][0], rows[1])
    write(tmp_path / "s.parquet")
    scalar = NumericSignal(tmp_path / "s.parquet", "s")
    assert (scalar.dtype, scalar.shape) == (np.dtype(np.float64), ())
    assert scalar.time[25] == (2.0, 20)


def test_empty_signal_of_the_public_writer(tmp_path: Path) -> None:
    empty = pa.array([], type=pa.int64())
    pq.write_table(pa.table({"timestamp": empty, "value": empty}), tmp_path / "s.parquet")
    signal = NumericSignal(tmp_path / "s.parquet", "s")
    assert len(signal) == 0
    assert len(signal.time[0:5]) == 0


def broken_files(path: Path) -> dict[str, bytes]:
    whole = path.read_bytes()
    return {
        "not parquet": b"this is not a parquet file",
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "damaged page": whole.replace(VALUES[50].tobytes(), bytes(8)),
    }


@pytest.mark.parametrize("how", ["not parquet", "empty", "cut", "damaged page"])
def test_damage_is_an_episode_error(tmp_path: Path, how: str) -> None:
    path = tmp_path / "grip.parquet"
    pq.write_table(
        pa.table({"timestamp": np.arange(99), "value": VALUES}),
        path,
        use_dictionary=False,
        compression=None,
        write_page_checksum=True,
    )
    path.write_bytes(broken_files(path)[how])
    with pytest.raises(EpisodeError, match=r"signal 'grip'.*restore the file") as caught:
        NumericSignal(path, "grip").time[50]
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"timestamp": [0.5, 1.5]}, "expected int64"),
        ({"timestamp": [5, 3]}, "back in time"),
        ({"value": [[1.0], [1.0, 2.0]]}, "differ in length"),
    ],
)
def test_what_is_no_signal(tmp_path: Path, columns: dict[str, object], why: str) -> None:
    path = tmp_path / "s.parquet"
    pq.write_table(pa.table({"timestamp": [0, 1], "value": [1.0, 2.0]} | columns), path)
    with pytest.raises(EpisodeError, match=why):
        list(NumericSignal(path, "s"))


@pytest.mark.parametrize("column", ["timestamp", "value"])
def test_missing_column_is_named(tmp_path: Path, column: str) -> None:
    path = tmp_path / "s.parquet"
    pq.write_table(pa.table({"timestamp": [0], "value": [1]}).drop_columns([column]), path)
    with pytest.raises(EpisodeError, match=f"no column '{column}'"):
        list(NumericSignal(path, "s"))
