import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foundation import tables
from foundation.documents import InvalidDocument
from foundation.tables import open_table
from tests.memory import at_most

MIB = 1 << 20


def table(rows: int = 40) -> pa.Table:
    return pa.table(
        {
            "timestamp": np.arange(rows) * 10**7 + 5,
            "value": [[float(i), -2.5, 0.0] for i in range(rows)],
            "text": [f"take the {i % 3}. cup" for i in range(rows)],
            "tasks": [["a", "b" * i] if i % 2 else [] for i in range(rows)],
            "flag": [i % 2 == 0 if i % 3 else None for i in range(rows)],
            "ts_ns": pa.array(np.arange(rows), pa.int64()),
            "ts_ns.world": pa.array(np.arange(rows), pa.int64()),
        }
    )


def written(path: Path, content: pa.Table, **options: Any) -> Path:
    pq.write_table(content, path, **options)
    return path


def read(path: Path) -> Any:
    with open_table(path) as opened:
        return opened.read()


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "lz4", "brotli"])
def test_every_way_of_packing_reads_as_pyarrow_reads_it(
    tmp_path: Path, compression: str, version: str
) -> None:
    path = tmp_path / "t.parquet"
    written(path, table(300), compression=compression, data_page_version=version, row_group_size=70)
    with open_table(path) as opened:
        assert opened.rows == 300
        assert opened.read().equals(table(300))
        assert opened.read(["ts_ns.world"]).equals(table(300).select(["ts_ns.world"]))
        assert [b.num_rows for b in opened.batches(64, ["value"])] == [64, 64, 64, 64, 44]
        assert opened.ends("timestamp") == (5, 299 * 10**7 + 5)
        assert opened.ends("ts_ns") == opened.ends("ts_ns.world") == (0, 299)


def test_encodings_of_other_writers(tmp_path: Path) -> None:
    encodings = {"timestamp": "DELTA_BINARY_PACKED", "text": "DELTA_BYTE_ARRAY"}
    encodings["value.list.element"] = "BYTE_STREAM_SPLIT"
    path = tmp_path / "t.parquet"
    written(path, table(), use_dictionary=False, column_encoding=encodings, write_statistics=False)
    assert read(path).equals(table())
    with open_table(path) as opened:
        assert opened.ends("timestamp") is None


def test_no_rows_and_no_columns(tmp_path: Path) -> None:
    empty = written(tmp_path / "empty.parquet", table(0))
    assert read(empty).num_rows == 0
    with pytest.raises(InvalidDocument, match="has no column 'speed'"), open_table(empty) as opened:
        opened.read(["speed"])


def repeated(count: int, text: str) -> pa.Array:
    """One text many times, which takes next to nothing in a file."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), [text])


def many(chunk: pa.Array) -> pa.ChunkedArray:
    """The same memory forty times over: what makes the file takes little itself."""
    return pa.chunked_array([chunk] * 40)


@pytest.mark.parametrize(
    ("column", "options"),
    [
        (lambda: many(pa.array(np.zeros(1_000_000))), {}),
        (
            lambda: many(pa.array(np.zeros(1_000_000))),
            {"use_dictionary": False, "compression": "zstd"},
        ),
        (lambda: repeated(20_000, "x" * 20_000), {}),
        (lambda: repeated(20_000, "x" * 20_000), {"compression": "brotli"}),
        (
            lambda: many(
                pa.ListArray.from_arrays(pa.array([0, 1_000_000], pa.int32()), np.zeros(1_000_000))
            ),
            {},
        ),
    ],
)
def test_a_small_file_never_takes_much_memory(
    tmp_path: Path, column: Callable[[], Any], options: dict[str, Any]
) -> None:
    path = written(tmp_path / "bomb.parquet", pa.table({"value": column()}), **options)
    assert path.stat().st_size < MIB
    code = (
        "import resource, sys\nimport pyarrow.parquet\nfrom foundation.tables import open_table\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    with open_table(sys.argv[1]) as table: table.read()\n"
        "except Exception as error: print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True, timeout=120
    )
    said, kib = done.stdout.splitlines()
    assert f"bytes would take more than {256} MiB of memory" in said
    assert int(kib) < 64 << 10


def test_long_and_constant_recordings_are_not_refused(tmp_path: Path) -> None:
    """Half an hour at 1 kHz of a vector that never changes: 200 times its pages."""
    rows = 1_800_000
    times = np.arange(rows) * 10**6
    values = pa.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32) * 7, np.zeros(rows * 7))
    content = pa.table({"timestamp": times, "value": values})
    path = written(tmp_path / "t.parquet", content, row_group_size=10_000)
    with open_table(path) as opened:
        assert opened.read(["value"]).num_rows == rows


@pytest.mark.parametrize("kind", ["pipe", "device", "directory", "empty", "text", "half"])
def test_what_is_no_table_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "t.parquet"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "directory":
            path.mkdir()
        case "empty":
            path.touch()
        case "text":
            path.write_text("timestamp,value\n" * 9)
        case _:
            whole = written(path, table()).read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises((InvalidDocument, IsADirectoryError)):
        read(path)


@pytest.mark.parametrize("element", ["booleans", "bytes", "doubles", "lists"])
def test_a_header_that_names_more_than_there_is_costs_no_time(tmp_path: Path, element: str) -> None:
    """A list of 2**60 values in a field that nobody asks for was gone through one by one."""
    content = pa.table({"value": np.arange(10.0)})
    path = written(tmp_path / "t.parquet", content, compression="none", use_dictionary=False)
    raw = path.read_bytes()
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    at, size = column.data_page_offset, column.total_compressed_size
    end = at + tables._struct(raw[at : at + size], 0, {})[1] - 1  # the header's last byte
    kind = {"booleans": 1, "bytes": 3, "doubles": 7, "lists": 9}[element]
    more = bytes([0x59, 0xF0 | kind]) + varint(2**60)
    footer = raw[-8 - int.from_bytes(raw[-8:-4], "little") : -8]
    longer = footer.replace(b"\x16" + varint(size << 1), b"\x16" + varint(size + len(more) << 1))
    assert longer != footer
    assert len(longer) == len(footer)
    body = raw[:end] + more + raw[end : -8 - len(footer)]
    path.write_bytes(body + longer + raw[-8:])
    with pytest.raises(InvalidDocument, match="no readable header"):
        read(path)


def varint(number: int) -> bytes:
    parts = [number >> shift & 127 for shift in range(0, max(1, number.bit_length()), 7)]
    return bytes([part | 128 for part in parts[:-1]] + parts[-1:])


def test_a_footer_may_not_be_large(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    written(path, table().replace_schema_metadata({"x": "y" * 4096}))
    with pytest.raises(InvalidDocument, match=r"footer has \d+ bytes, expected at most 4096"):
        open_table(path, footer=4096).__enter__()
    with open_table(path) as opened:
        assert opened.metadata == {b"x": b"y" * 4096}


def test_a_footer_that_promises_more_rows_is_refused(tmp_path: Path) -> None:
    """Readers reserve memory for the rows that it names, and count by it."""
    path = written(tmp_path / "t.parquet", table().select(["timestamp"]))
    whole = bytearray(path.read_bytes())
    place = whole.rindex(b"\x16\x50")  # 40 rows of a group, then of all
    whole[place + 1] = 0x7E
    path.write_bytes(whole)
    with pytest.raises(InvalidDocument, match="footer"), open_table(path) as opened:
        opened.check(["timestamp"])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "none", "write_page_checksum": True},
        {"use_dictionary": False, "data_page_version": "2.0", "compression": "gzip"},
    ],
)
def test_damage_is_always_told_as_such(tmp_path: Path, options: dict[str, Any]) -> None:
    """pyarrow itself ends the process for a seventh of these, where it is asked of a column."""
    path = tmp_path / "t.parquet"
    whole = written(path, table(), **options).read_bytes()
    chance = random.Random(7)
    said: list[str] = []
    for _ in range(700):
        damaged = bytearray(whole)
        for _ in range(chance.choice((1, 1, 2, 8))):
            start = 0 if chance.random() < 0.5 else max(0, len(damaged) - 900)
            place = chance.randrange(start, len(damaged))
            match chance.randrange(3):
                case 0:
                    damaged[place] = chance.randrange(256)
                case 1:
                    damaged[place] ^= 1 << chance.randrange(8)
                case _:
                    del damaged[place : place + chance.choice((1, 4))]
        path.write_bytes(damaged)
        try:
            with at_most(1 << 30), open_table(path) as opened:
                opened.ends("timestamp")
                opened.read()
        except InvalidDocument as error:
            said.append(str(error))
    assert len(said) > 300
    assert all(len(line.splitlines()) == 1 for line in said)


def test_missing_files_stay_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "t.parquet")
