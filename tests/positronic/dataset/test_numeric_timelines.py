"""Recordings of public Positronic since 0.3, by what its sources say of their files."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from positronic.dataset import LocalDataset
from positronic.errors import EpisodeError

from .conftest import record

NAMED = {b"positronic.signal_version": b"2"}


def rewrite(file: Path, lines: dict[str, int], **metadata: bytes) -> None:
    """Give a file of one column of timestamps several, each so many ns later."""
    table = pq.read_table(file)
    times = table.column(0).to_numpy()
    columns = {f"ts.{line}": pa.array(times + later) for line, later in lines.items()}
    if "value" in table.column_names:
        columns["value"] = table["value"]
    found = {**(table.schema.metadata or {}), **NAMED}
    found |= {f"positronic.{key}".encode(): value for key, value in metadata.items()}
    pq.write_table(pa.table(columns).replace_schema_metadata(found), file)


def opened(path: Path) -> Any:
    return LocalDataset(path.parents[1])[0]


@pytest.mark.parametrize(
    ("lines", "later"),
    [
        ({"emitted.wall": 900, "received.world": 2, "harness.world": 3, "harness.wall": 901}, 3),
        ({"recorded": 4, "emitted.world": 1, "received.world": 2}, 2),
        ({"emitted.world": 1, "recorded": 4}, 4),
    ],
)
def test_the_recorder_s_own_world_clock_counts(
    tmp_path: Path, lines: dict[str, int], later: int
) -> None:
    path = record(tmp_path)
    before = opened(path)
    times, values = before["q"].timestamps(), before["q"].values()
    picture, moment = before["image.wrist"][7]
    for name in ("q.parquet", "grip.parquet", "image.wrist.frames.parquet"):
        rewrite(path / name, lines)
    episode = opened(path)
    assert np.array_equal(episode["q"].timestamps(), times + later)
    assert np.array_equal(episode["q"].values(), values)
    assert (episode.start_ts, episode.last_ts) == (times[0] + later, times[-1] + later)
    shown, at = episode["image.wrist"][7]
    assert at == moment + later
    assert np.array_equal(shown, picture)


@pytest.mark.parametrize("name", ["grip.parquet", "image.wrist.frames.parquet"])
def test_files_that_are_not_understood(tmp_path: Path, name: str) -> None:
    path = record(tmp_path)
    signal = name.split(".frames")[0].removesuffix(".parquet")
    rewrite(path / name, {"emitted.wall": 0, "tick": 0})
    with pytest.raises(EpisodeError, match=r"\['emitted.wall', 'tick'\], expected one of"):
        len(opened(path)[signal])
    rewrite(path / name, {"harness.world": 0}, signal_version=b"3")
    with pytest.raises(EpisodeError, match=f"{signal}.*format version is 3, expected 1 or 2"):
        len(opened(path)[signal])


def test_a_signal_without_a_sample(tmp_path: Path) -> None:
    path = record(tmp_path)
    empty = pa.table({"value": pa.array([], type=pa.int64())}).replace_schema_metadata(NAMED)
    pq.write_table(empty, path / "grip.parquet")
    episode = opened(path)
    assert len(episode["grip"]) == 0
    assert episode["grip"].timestamps().tolist() == []
