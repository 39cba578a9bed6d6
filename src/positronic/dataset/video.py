"""Video signals: an mp4 file and the parquet index of its frames' timestamps.

Row ``i`` of ``<name>.frames.parquet`` is the timestamp of frame ``i``, in the column ``ts_ns`` or
in those of :mod:`positronic.dataset.numeric`. The frame rate in the video file is nominal; only
the index has the times.

The index's schema metadata may hold two keys of our own, which other readers ignore: the video
file's checksum (``CHECKSUM``), since damage inside H.264 mostly decodes without an error, and the
true size of the images (``FRAME_SIZE``).

H.264 in yuv420p subsamples colour by two by two pixels, so width and height must be even. An image
of odd size is stored with its last row or column repeated once, and this reader crops to
``FRAME_SIZE``. Readers that do not know the key see the repeated edge.
"""

import threading
import weakref
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload, override

import numpy as np
from numpy.typing import NDArray

from foundation.tables import open_table
from positronic.dataset.decoder import MAX_PIXELS, Decoder
from positronic.dataset.faults import broken, reading
from positronic.dataset.numeric import FOOTER, Ends, read_footer, read_timestamps
from positronic.dataset.signal import Indices, Signal, Times, whole_indices

TS_NS = "ts_ns"
FRAME_SIZE = b"positronic.frame_size"  # "height width", only if the encoded frames are larger
CHECKSUM = b"positronic.video_crc32"  # 8 hexadecimal digits
MAX_OPEN = 64  # video files held open by one process; the usual limit of open files is 1024

Image = NDArray[np.uint8]

_open: "OrderedDict[int, weakref.ref[VideoSignal]]" = OrderedDict()
_open_lock = threading.Lock()


def _limit_open(signal: "VideoSignal") -> None:
    """Mark ``signal``'s file as most recently opened; beyond ``MAX_OPEN`` close the oldest."""
    with _open_lock:
        _open[id(signal)] = weakref.ref(signal)
        _open.move_to_end(id(signal))
        if len(_open) > MAX_OPEN:
            _, oldest = _open.popitem(last=False)
            if (other := oldest()) is not None:
                other.close()


def crc32_of(path: Path) -> bytes:
    """Checksum of a whole file as 8 hexadecimal digits; about a second per GB."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return b"%08x" % crc


@dataclass(frozen=True)
class _Index:
    """Footer of a frame index."""

    length: int
    column: str | None
    bounds: Ends | None
    size: tuple[int, int] | None
    checksum: bytes | None


class VideoSignal(Signal):
    """Images uint8 ``(height, width, 3)`` decoded on demand; opening reads nothing.

    EpisodeError, naming episode and signal, if video or index is missing or damaged, or if the
    index has more rows than the video has frames.
    """

    kind = "video"

    def __init__(self, video: Path, index: Path, name: str) -> None:
        self._video = video
        self._index = index
        self._name = name
        self._episode = video.parent
        self._decoder: Decoder | None = None
        self._verified = False
        self._last: tuple[int, Image] | None = None
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        """The paths only: an open decoder cannot be pickled."""
        return {"video": self._video, "index": self._index, "name": self._name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Reopen from the same paths."""
        VideoSignal.__init__(self, **state)

    def _reading(self) -> Any:
        return reading(self._episode, f"signal {self._name!r}", self._video, self._index)

    @cached_property
    def _footer(self) -> _Index:
        with self._reading(), open_table(self._index, FOOTER) as table:
            size = None
            if FRAME_SIZE in table.metadata:
                height, width = (int(n) for n in table.metadata[FRAME_SIZE].split())
                if min(height, width) < 1 or height * width > MAX_PIXELS:
                    raise ValueError(f"its index gives a frame size of {height} x {width} pixels")
                size = (height, width)
            length, column, bounds = read_footer(table, TS_NS)
            return _Index(length, column, bounds, size, checksum=table.metadata.get(CHECKSUM))

    @cached_property
    def _timestamps(self) -> Times:
        index = self._footer
        with self._reading():
            return read_timestamps(self._index, index.column, index.bounds)

    def __len__(self) -> int:
        return self._footer.length

    def _timestamp_at(self, index: int) -> int:
        bounds = self._footer.bounds
        return super()._timestamp_at(index) if bounds is None else bounds[index]

    @override
    def timestamps(self) -> Times:
        return self._timestamps

    @property
    @override
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """``(height, width, 3)`` of the recorded images, from the file's header."""
        size = self._footer.size
        if size is None:
            with self._lock:
                size = self._opened().size
        return (*size, 3)

    def _opened(self) -> Decoder:
        if self._decoder is None:
            self._decoder = self._open()
            _limit_open(self)
        return self._decoder

    def _open(self) -> Decoder:
        with self._reading():
            decoder = Decoder(self._video)
            recorded_size = self._footer.size
            if recorded_size is not None and decoder.size != tuple(
                n + n % 2 for n in recorded_size
            ):
                raise ValueError(
                    f"its frame size is {decoder.size}, its index gives {recorded_size}"
                )
            if not self._verified:
                recorded = self._footer.checksum
                if recorded is not None and crc32_of(self._video) != recorded:
                    raise ValueError(f"{self._video.name} is not the file that was recorded")
                self._verified = True
        if 0 < decoder.length < len(self):
            raise broken(
                self._episode,
                f"signal {self._name!r}",
                f"its index lists {len(self)} frames but the video holds {decoder.length}",
            )
        return decoder

    def close(self) -> None:
        """Close the video file; the next frame opens it again."""
        self._decoder = None

    def _decode(self, decoder: Decoder, index: int) -> Image:
        try:
            image = decoder.frame(index)
        except Exception:
            with self._reading():  # entered only on errors: this runs for every frame
                raise
        if self._footer.size is None:
            return image
        height, width = self._footer.size
        return np.ascontiguousarray(image[:height, :width])

    def image(self, index: int) -> Image:
        """Frame ``index``, read-only; the last one is cached."""
        with self._lock:
            if self._last is None or self._last[0] != index:
                try:
                    image = self._decode(self._opened(), index)
                except Exception:
                    self._decoder = None  # after an error its position is unknown
                    raise
                image.setflags(write=False)
                self._last = (index, image)
            return self._last[1]

    def frames(self, indices: Iterable[int] | None = None) -> Iterator[Image]:
        """Images at ``indices`` (default: all) one by one, the fast way for ascending indices.

        Each frame is decoded once and only one is in memory; an index given several times in a
        row yields the same array again. It opens its own decoder, independent of other reads.
        """
        wanted = range(len(self)) if indices is None else indices
        decoder: Decoder | None = None
        last: tuple[int, Image] | None = None
        try:
            for index in wanted:
                if decoder is None:
                    decoder = self._open()
                if last is None or last[0] != index:
                    if not 0 <= index < len(self):
                        raise IndexError(f"frame {index} of a signal of {len(self)} samples")
                    image = self._decode(decoder, int(index))
                    image.setflags(write=False)
                    last = (int(index), image)
                yield last[1]
        finally:
            if decoder is not None:
                decoder.close()

    @override
    def take(self, indices: Indices) -> "Frames":
        return Frames(self, indices)


class Frames(Sequence[Image]):
    """Images of a video at chosen frame numbers, decoded on demand.

    Iterating decodes forward with constant memory; ``numpy.asarray`` gives ``(n, h, w, 3)``.
    """

    def __init__(self, source: VideoSignal, indices: Indices) -> None:
        self._source = source
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Image: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | NDArray[Any]) -> "Frames": ...

    def __getitem__(self, index: Any) -> Any:
        """One image, or a lazy sequence for a slice or many positions."""
        if isinstance(index, int | np.integer):
            position = whole_indices([index], len(self))
            return self._source.image(int(self._indices[position[0]]))
        return Frames(self._source, self._indices[whole_indices(index, len(self))])

    def __iter__(self) -> Iterator[Image]:
        """Images in order, decoding each once."""
        return self._source.frames(self._indices)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """All images stacked; this decodes and holds them all."""
        out = np.empty((len(self), *self._source.shape), dtype=np.uint8)
        for i, image in enumerate(self):
            out[i] = image
        return out if dtype is None else out.astype(dtype)
