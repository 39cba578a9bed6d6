"""Signal sinks of the recorder: a parquet file, or a video and its index.

Files are readable only after ``close``; the episode is published after that.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, override

import numpy as np
from numpy.typing import NDArray

from foundation.arrow import as_arrow
from foundation.video import Encoder, VideoFile, even
from positronic.dataset.numeric import LATEST_NS, TIMESTAMP, VALUE
from positronic.dataset.video import CHECKSUM, FRAME_SIZE, TS_NS, crc32_of

ROW_GROUP = 10_000
NOMINAL_FPS = 100
# Rate control sees 100 frames a second and allows each of them more error than at 15 Hz, hence a
# lower crf than usual. Measured on 320x240 renderings: 42 dB, 0.9 kB and 0.8 ms a frame, against
# 39.4 dB, 0.5 kB and 1.2 ms for the encoder's defaults. B-frames save a tenth and are left out.
# Recorders run side by side, one per core; threads inside one would only contend.
ENCODER = Encoder(
    "libx264",
    "yuv420p",
    {"crf": "14", "preset": "veryfast", "g": "30", "bf": "0", "threads": "1"},
)


def is_image(value: Any) -> bool:
    """Return whether a sample is stored as video: a uint8 array ``(height, width, 3)``."""
    return (
        isinstance(value, np.ndarray)
        and value.dtype == np.uint8
        and value.ndim == 3
        and value.shape[2] == 3
    )


class Sink(ABC):
    """Writer of one signal: samples of the same shape and dtype, timestamps strictly increasing.

    ``append`` checks before it stores, so a rejected sample changes nothing.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self.name = name
        self._directory = directory
        self.start_ts: int | None = None
        self.last_ts: int | None = None
        self._form: tuple[np.dtype[Any], tuple[int, ...]] | None = None
        self._lines: tuple[str, ...] = ()
        self._columns: dict[str, list[int]] = {}

    @property
    @abstractmethod
    def files(self) -> list[Path]:
        """Paths of the files it writes."""

    @abstractmethod
    def _prepare(self, value: Any) -> NDArray[Any]:
        """``value`` as an array that this sink can store, or ValueError."""

    @abstractmethod
    def _store(self, value: NDArray[Any]) -> None: ...

    @abstractmethod
    def close(self) -> None:
        """Complete the files."""

    @abstractmethod
    def discard(self) -> None:
        """Close the open files and leave them incomplete."""

    def append(self, value: Any, ts_ns: int, extra_ts: Mapping[str, int]) -> None:
        """Store one sample; ValueError, with nothing stored, if it does not match the others."""
        array = self._prepare(value)
        form = (array.dtype, array.shape)
        if self.last_ts is None:
            self._form = form
            self._lines = tuple(sorted(extra_ts))
        if form != self._form:
            assert self._form is not None
            raise ValueError(
                f"signal {self.name!r}: got {form[0]} {form[1]}, but its first sample was "
                f"{self._form[0]} {self._form[1]}"
            )
        if self.last_ts is not None and ts_ns <= self.last_ts:
            raise ValueError(
                f"signal {self.name!r}: timestamp {ts_ns} is not after the last, {self.last_ts}"
            )
        for time in (ts_ns, *extra_ts.values()):
            if abs(time) > LATEST_NS:
                raise ValueError(f"signal {self.name!r}: {time} ns is not a plausible time")
        if tuple(sorted(extra_ts)) != self._lines:
            raise ValueError(
                f"signal {self.name!r}: extra time lines {sorted(extra_ts)}, but its first sample "
                f"had {list(self._lines)}"
            )
        self._store(array)
        self._columns.setdefault("", []).append(ts_ns)
        for line in self._lines:
            self._columns.setdefault(line, []).append(int(extra_ts[line]))
        self.start_ts = ts_ns if self.start_ts is None else self.start_ts
        self.last_ts = ts_ns

    def _times(self, first: str) -> tuple[list[str], list[Any]]:
        """Names and int64 Arrow arrays of the time columns, the main one first."""
        names = [first, *(f"{TS_NS}.{line}" for line in self._lines)]
        columns = [self._columns.get(line, []) for line in ("", *self._lines)]
        return names, [as_arrow(np.array(column, dtype=np.int64)) for column in columns]


class NumericSink(Sink):
    """Scalars and vectors, written in row groups of ``ROW_GROUP``."""

    def __init__(self, directory: Path, name: str) -> None:
        super().__init__(directory, name)
        self._path = directory / f"{name}.parquet"
        self._writer: Any = None
        self._values: list[NDArray[Any]] = []

    @property
    @override
    def files(self) -> list[Path]:
        return [self._path]

    def _prepare(self, value: Any) -> NDArray[Any]:
        array = np.array(value)  # a copy: the caller may reuse its buffer
        if array.ndim > 1:
            raise ValueError(
                f"signal {self.name!r}: an array of shape {array.shape} and {array.dtype} cannot "
                "be stored; expected a scalar, a vector, or a uint8 image (height, width, 3)"
            )
        if array.dtype.kind not in "biufU":
            raise ValueError(f"signal {self.name!r}: {array.dtype} is neither numeric nor text")
        if array.dtype.kind == "U":
            array = array.astype(np.dtype("T"))  # texts may differ in length
        return array

    def _store(self, value: NDArray[Any]) -> None:
        if len(self._values) >= ROW_GROUP:
            self._flush()
        self._values.append(value)

    def _arrow_values(self) -> Any:
        import pyarrow as pa

        assert self._form is not None
        dtype, shape = self._form
        stacked = np.stack(self._values)
        if dtype.kind == "T":
            return pa.array(stacked.tolist(), type=pa.list_(pa.string()) if shape else pa.string())
        flat = as_arrow(stacked.reshape(-1))
        if not shape:
            return flat
        offsets = as_arrow(np.arange(len(stacked) + 1, dtype=np.int32) * np.int32(shape[0]))
        return pa.ListArray.from_arrays(offsets, flat)

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        names, times = self._times(TIMESTAMP)
        arrays = [times[0], self._arrow_values(), *times[1:]]
        batch = pa.record_batch(arrays, names=[names[0], VALUE, *names[1:]])
        if self._writer is None:
            # With checksums our reader detects a damaged page; other readers ignore them.
            self._writer = pq.ParquetWriter(
                self._path, batch.schema, compression="snappy", write_page_checksum=True
            )
        self._writer.write_batch(batch, row_group_size=ROW_GROUP)
        self._values.clear()
        self._columns.clear()

    @override
    def close(self) -> None:
        if self._values:
            self._flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    @override
    def discard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class VideoSink(Sink):
    """Images, encoded as they arrive; the index is written at the end."""

    def __init__(self, directory: Path, name: str) -> None:
        super().__init__(directory, name)
        self._video = directory / f"{name}.mp4"
        self._index = directory / f"{name}.frames.parquet"
        self._file: VideoFile | None = None

    @property
    @override
    def files(self) -> list[Path]:
        return [self._video, self._index]

    def _prepare(self, value: Any) -> NDArray[Any]:
        if not is_image(value):
            kind = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value)
            raise ValueError(
                f"signal {self.name!r}: got {kind}, expected an image, uint8 (height, width, 3)"
            )
        return np.asarray(value)

    def _store(self, value: NDArray[Any]) -> None:
        if self._file is None:
            self._file = VideoFile(self._video, NOMINAL_FPS, ENCODER)
        self._file.add(even(value))

    @override
    def close(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._file is not None:
            self._file.close()
            self._file = None
        names, times = self._times(TS_NS)
        assert self._form is not None
        height, width = self._form[1][:2]
        metadata = {CHECKSUM: crc32_of(self._video)}
        if height % 2 or width % 2:
            metadata[FRAME_SIZE] = b"%d %d" % (height, width)
        pq.write_table(
            pa.table(times, names=names).replace_schema_metadata(metadata),
            self._index,
            compression="snappy",
            row_group_size=ROW_GROUP,
            write_page_checksum=True,
        )

    @override
    def discard(self) -> None:
        if self._file is not None:
            self._file.discard()
            self._file = None
