"""Parquet reader for untrusted files: reads columns only within a bound of memory.

A parquet file of half a megabyte may hold gigabytes: repeated values, long texts in a dictionary,
pages compressed a thousandfold. Only the page headers, which the decoder itself uses, say how much;
those of the columns to be read are checked first, and the footer has to agree with them.

Footer and headers are parsed here: pyarrow exposes less of them, and crashes the process when asked
about a damaged column (version 26, ``RowGroupMetaData.column``).
"""

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from foundation.documents import InvalidDocument
from foundation.text import printable

__all__ = ["Table", "open_table"]

# What columns may take in memory: always SMALLEST, else RATIO times the file, up to LARGEST (or
# twice the file, where it is that large). Ten hours of a vector of 32 numbers at 1 kHz are 9 GiB
# and, if not one of them ever changes, still 140 MB of times in the file; ordinary recordings take
# 2 to 10 times their files. Half a megabyte takes no more than 256 MiB.
SMALLEST = 256 << 20
RATIO = 100
LARGEST = 16 << 30
# 100,000 episodes in a table of LeRobot, with its 150 columns in groups of 100, have 20 MB.
FOOTER = 32 << 20

_WIDTHS = {"BOOLEAN": 1, "INT32": 8, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}
_NESTED = 8  # levels and offsets beside each value inside a list
_DICTIONARY_ENCODINGS = (2, 8)
_DELTA_BYTE_ARRAY = 7  # each text repeats a part of the one before
_WITHOUT_LOOKING = 16 << 20  # dictionaries whose texts take no more than this are not parsed


@contextmanager
def open_table(path: str | Path, footer: int = FOOTER) -> Iterator["Table"]:
    """Open a parquet file whose footer has at most ``footer`` bytes.

    Raises:
        FileNotFoundError: it is not there.
        OSError: it cannot be opened.
        InvalidDocument: it is not a regular file, not parquet, or its footer is too large.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        with _told(path):
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ValueError("it is not a regular file")
            table = Table(file, path, footer)
        try:
            yield table
        finally:
            table.file.close()


class Table:
    """An open parquet file.

    Attributes:
        file: the ``ParquetFile``, for its schema; columns are read by the methods here.
        rows: number of rows by its footer; verified once a column was checked.
        names: the columns.
        metadata: its schema's metadata.
    """

    def __init__(self, file: BinaryIO, path: str | Path, footer: int) -> None:
        import pyarrow.parquet as pq

        self._path = path
        self._descriptor = file.fileno()
        self._size = os.fstat(self._descriptor).st_size
        end = os.pread(self._descriptor, 8, max(0, self._size - 8))
        length = int.from_bytes(end[:4], "little")
        if end[4:] != b"PAR1" or length > self._size - 8:
            raise ValueError("it is not a parquet file, or it was cut off")
        if length > footer:
            raise ValueError(f"its footer has {length} bytes, expected at most {footer}")
        self._footer = os.pread(self._descriptor, length, self._size - 8 - length)
        self.file: Any = pq.ParquetFile(file, page_checksum_verification=True, pre_buffer=False)
        self.rows = int(self.file.metadata.num_rows)
        schema = self.file.schema_arrow
        self.names: list[str] = list(schema.names)
        self.metadata: dict[bytes, bytes] = dict(schema.metadata or {})

    @property
    def allowed(self) -> int:
        """Bytes that its columns may take in memory."""
        return max(SMALLEST, 2 * self._size, min(RATIO * self._size, LARGEST))

    def check(self, columns: Sequence[str] | None = None) -> None:
        """Check the headers of all pages of these columns; None for all columns.

        Raises:
            InvalidDocument: they would take more than ``allowed``, or do not agree with the footer.
        """
        with _told(self._path):
            self._check(columns)

    def read(self, columns: Sequence[str] | None = None) -> Any:
        """Return these columns as an Arrow table, after :meth:`check`, in one thread.

        Raises:
            InvalidDocument: as :meth:`check`; or there is no such column, or it is damaged.
        """
        with _told(self._path):
            self._check(columns)
            return self.file.read(columns=columns, use_threads=False)

    def batches(self, rows: int, columns: Sequence[str] | None = None) -> Iterator[Any]:
        """Yield these columns as Arrow record batches of at most ``rows``; as :meth:`read`."""
        with _told(self._path):
            self._check(columns)
            batches = self.file.iter_batches(batch_size=rows, columns=columns, use_threads=False)
        while True:
            with _told(self._path):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def ends(self, column: str) -> tuple[int, int] | None:
        """Return first and last value of an ascending INT64 column as the footer has them.

        None if it has no statistics. They are not verified; :meth:`check` does not read them.

        Raises:
            InvalidDocument: there is no such column, or the footer is damaged.
        """
        with _told(self._path):
            schema = self.file.schema
            index = next((i for i in self._leaves([column]) if schema.column(i).path == column), -1)
            if index < 0 or schema.column(index).physical_type != "INT64" or not self._groups:
                return None
            chunks = self._groups[0].chunks[index], self._groups[-1].chunks[index]
            first, last = chunks[0].get(_STATISTICS, {}), chunks[1].get(_STATISTICS, {})
            ends = first.get(_LEAST), last.get(_MOST)
            if not all(isinstance(end, bytes) and len(end) == 8 for end in ends):
                return None
            least, most = (int.from_bytes(end, "little", signed=True) for end in ends)
            return least, most

    def _leaves(self, columns: Sequence[str] | None) -> list[int]:
        """Return the indices of the leaf columns of these columns."""
        absent = [name for name in columns or () if name not in self.names]
        if absent:
            raise ValueError(f"it has no column {absent[0]!r}")
        schema = self.file.schema
        paths = [schema.column(i).path for i in range(len(schema))]
        return [i for i, path in enumerate(paths) if columns is None or _is_in(path, columns)]

    @cached_property
    def _groups(self) -> list["_Group"]:
        try:
            groups = [_Group(g) for g in _struct(self._footer, 0, _FOOTER_FIELDS)[0].get(4, [])]
        except (IndexError, KeyError, TypeError, AttributeError) as fault:
            raise ValueError("its footer is damaged") from fault
        counts = [group.rows for group in groups]
        if min(counts, default=0) < 0 or sum(counts) != self.rows:
            raise ValueError(f"its footer says {self.rows} rows, and {sum(counts)} in its parts")
        if any(len(group.chunks) != len(self.file.schema) for group in groups):
            raise ValueError("its footer does not name all columns of all rows")
        return groups

    def _check(self, columns: Sequence[str] | None) -> None:
        leaves = [(i, self.file.schema.column(i)) for i in self._leaves(columns)]
        allowed, packed, unpacked = self.allowed, 0, 0
        for group in self._groups:
            for index, leaf in leaves:
                chunk = _Chunk(self._descriptor, self._size, group.rows, group.chunks[index])
                packed += chunk.packed
                if packed > self._size:
                    raise ValueError("its columns lie upon each other")
                for taken in chunk.taken(leaf):
                    unpacked += taken
                    if unpacked > allowed:
                        raise ValueError(
                            f"its {self._size} bytes would take more than {allowed >> 20} MiB of "
                            "memory"
                        )


class _Group:
    """A row group of the footer: its number of rows, and the metadata of each column chunk."""

    def __init__(self, fields: Mapping[int, Any]) -> None:
        self.rows: int = fields[3]
        self.chunks: list[Mapping[int, Any]] = [chunk[3] for chunk in fields[1]]


class _Chunk:
    """A column chunk: the pages of one column in one row group."""

    def __init__(self, descriptor: int, size: int, rows: int, fields: Mapping[int, Any]) -> None:
        self._descriptor = descriptor
        self._rows, self._values, self.packed = rows, fields[_VALUES], fields[_PACKED]
        self._start = min(fields[_DATA], fields.get(_DICTIONARY) or fields[_DATA])
        self._end = self._start + self.packed
        if self.packed < 0 or not 0 <= self._start <= self._end <= size:
            raise ValueError("its footer names a place behind its end")

    def taken(self, column: Any) -> Iterator[int]:
        """Yield, page by page, the most bytes of memory that it may take.

        ValueError if the footer declares another number of values than the pages hold.
        """
        texts = column.physical_type == "BYTE_ARRAY"
        width = 8 if texts else _WIDTHS.get(column.physical_type, column.length)
        width += _NESTED if column.max_definition_level or column.max_repetition_level else 0
        at, values = self._start, 0
        longest: Callable[[int], int] = _nothing
        while at < self._end and values < self._values:
            page, at = _page_header(self._descriptor, at, self._end)
            if page.unpacked < 0 or page.values < 0 or not 0 <= page.packed <= self._end - at:
                raise ValueError("one of its pages has a size that cannot be")
            yield page.unpacked + page.values * width
            if page.kind == _DICTIONARY_PAGE:
                longest = self._longest(at, page.packed, page.unpacked)
            else:
                values += page.values
            if texts and page.encoding in _DICTIONARY_ENCODINGS and page.kind != _DICTIONARY_PAGE:
                yield page.values * longest(page.values)
            elif texts:
                yield page.unpacked * (page.values if page.encoding == _DELTA_BYTE_ARRAY else 1)
            at += page.packed
        if values != self._values or self._rows > values:
            raise ValueError(
                f"its footer says {self._rows} rows of {self._values} values, its pages hold "
                f"{values} values"
            )

    def _longest(self, at: int, packed: int, unpacked: int) -> Callable[[int], int]:
        """Return an upper bound of the longest text in a dictionary page, by the number of uses."""
        found: list[int] = []

        def longest(count: int) -> int:
            if count * unpacked <= _WITHOUT_LOOKING or unpacked > _WITHOUT_LOOKING:
                return unpacked
            if not found:
                content = os.pread(self._descriptor, packed, at)
                found.append(_longest(content, unpacked))
            return found[0]

        return longest


def _nothing(count: int) -> int:
    return 0


def _longest(content: bytes, unpacked: int) -> int:
    """Return an upper bound of the bytes of the longest text in a dictionary page."""
    import pyarrow as pa

    found = [unpacked] if len(content) != unpacked else [_longest_text(content)]
    # The footer names the codec; but pyarrow crashes the process if it names a wrong one.
    for codec in ("snappy", "zstd", "gzip", "lz4_raw", "brotli"):
        try:
            whole = pa.decompress(content, unpacked, codec, asbytes=True)
        except (ValueError, OSError):
            continue
        found.append(_longest_text(whole))
    if len(found) > 1 and len(content) != unpacked:
        found = found[1:]
    return min(max(found), unpacked)


def _longest_text(content: bytes) -> int:
    at, longest = 0, 0
    while at + 4 <= len(content):
        length = int.from_bytes(content[at : at + 4], "little")
        longest = max(longest, length)
        at += 4 + length
    return longest


def _is_in(path: str, columns: Sequence[str]) -> bool:
    return any(path == name or path.startswith(f"{name}.") for name in columns)


@contextmanager
def _told(path: str | Path) -> Iterator[None]:
    """Turn any error while reading into InvalidDocument."""
    import pyarrow as pa

    try:
        yield
    except InvalidDocument:
        raise
    except (Exception, pa.ArrowMemoryError) as fault:
        if isinstance(fault, MemoryError) and not isinstance(fault, pa.ArrowMemoryError):
            raise
        why = printable(fault) or type(fault).__name__
        raise InvalidDocument(f"{path} cannot be read as a parquet table: {why}") from fault


# Footer and headers are structs of Thrift's compact protocol (https://thrift.apache.org), by
# https://github.com/apache/parquet-format. For each struct that is parsed, the type of each field
# by its number: 0 for a number, b"" for bytes, a mapping for a struct, a list for a list.
type _Kind = int | bytes | Mapping[int, "_Kind"] | list["_Kind"]

_VALUES, _PACKED, _DATA, _DICTIONARY, _STATISTICS = 5, 7, 9, 11, 12
_MOST, _LEAST = 5, 6
_CHUNK_FIELDS: _Kind = {
    3: {_VALUES: 0, _PACKED: 0, _DATA: 0, _DICTIONARY: 0, _STATISTICS: {_MOST: b"", _LEAST: b""}}
}
_FOOTER_FIELDS: Mapping[int, _Kind] = {4: [{1: [_CHUNK_FIELDS], 3: 0}]}
_DATA_PAGE, _DICTIONARY_PAGE, _DATA_PAGE_V2 = 0, 2, 3
# For each page type: the field with its own header, and in it the count and the encoding.
_PAGES = {_DATA_PAGE: (5, 1, 2), _DICTIONARY_PAGE: (7, 1, 2), _DATA_PAGE_V2: (8, 1, 4)}
_PAGE_FIELDS: Mapping[int, _Kind] = {
    **{1: 0, 2: 0, 3: 0},
    **{own: {count: 0, encoding: 0} for own, count, encoding in _PAGES.values()},
}

_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _STRUCT = 0, 1, 2, 3, 7, 8, 12
_WHOLE = (4, 5, 6)  # numbers of 16, 32 and 64 bits, as varints
_LISTS = (9, 10)
_DEEPEST = 16


class _Page(NamedTuple):
    kind: int
    unpacked: int
    packed: int
    values: int
    encoding: int


def _page_header(descriptor: int, at: int, end: int) -> tuple[_Page, int]:
    """Return the page header at ``at``, and where it ends."""
    for size in (256, 64 << 10, 16 << 20):  # it may hold the page's minimum and maximum text
        content = os.pread(descriptor, min(size, end - at), at)
        try:
            fields, length = _struct(content, 0, _PAGE_FIELDS)
            kind, unpacked, packed = fields[1], fields[2], fields[3]
            own, count, encoding = _PAGES.get(kind, (None, 1, 2))
            said = fields[own] if own is not None else {count: 0, encoding: 0}
            return _Page(kind, unpacked, packed, said[count], said[encoding]), at + length
        except IndexError:
            if size >= end - at:
                break
        except (KeyError, TypeError):
            break
    raise ValueError("one of its pages has no readable header")


def _struct(
    content: bytes, at: int, wanted: Mapping[int, _Kind], depth: int = 0
) -> tuple[dict[int, Any], int]:
    """Return the wanted fields of a struct and where it ends; IndexError if it is cut off."""
    if depth > _DEEPEST:
        raise ValueError("it is nested too deeply")
    fields: dict[int, Any] = {}
    number = 0
    while (head := content[at]) & 15 != _STOP:
        at += 1
        kind = head & 15
        if head >> 4:
            number += head >> 4
        else:
            number, at = _signed(content, at)
        if kind not in (_TRUE, _FALSE):  # the value is in the field's header
            value, at = _value(content, at, kind, wanted.get(number), depth)
            if number in wanted:
                fields[number] = value
    return fields, at + 1


def _value(content: bytes, at: int, kind: int, wanted: _Kind | None, depth: int) -> tuple[Any, int]:
    if kind in _WHOLE:
        return _signed(content, at)
    if kind == _BINARY:
        length, at = _varint(content, at)
        if at + length > len(content):
            raise IndexError
        return content[at : at + length] if wanted is not None else None, at + length
    if kind == _STRUCT:
        return _struct(content, at, wanted if isinstance(wanted, Mapping) else {}, depth + 1)
    if kind in _LISTS:
        count, inner = content[at] >> 4, content[at] & 15
        at += 1
        if count == 15:
            count, at = _varint(content, at)
        if count > len(content) - at:  # each takes at least a byte
            raise IndexError
        values = []
        for _ in range(count):
            if isinstance(wanted, list):
                value, at = _value(content, at, inner, wanted[0], depth + 1)
                values.append(value)
            else:
                _, at = _value(content, at, inner, None, depth + 1)
        return values, at
    if kind in (_TRUE, _FALSE, _BYTE, _DOUBLE):
        return None, at + (8 if kind == _DOUBLE else 1)
    raise ValueError("it holds what no parquet file does")


def _signed(content: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(content, at)
    return (value >> 1) ^ -(value & 1), at


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError("it holds a number that is too long")
