"""HDF5 reader for untrusted files: no links to other files, bounded memory.

An HDF5 file may contain links, external and virtual datasets that make h5py read other files, and a
few bytes in it may declare, or decompress to, any amount of memory. All of these are rejected
before data is read.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.text import printable
from positronic.errors import EpisodeError

# Memory limit of the arrays of one demonstration: RATIO times the file size, at least SMALLEST.
# Images are compressed to a half or a tenth; constant data to almost nothing.
SMALLEST = 512 << 20
RATIO = 20
CHUNK = 256 << 20  # bytes of a row, or of a chunk, of an array that is read row by row
TEXT = 16 << 20  # characters of a string, such as the XML of a model
_GZIP, _SHUFFLE, _CHECKSUM = 1, 2, 3  # HDF5 filter ids


class Rows(Sequence[NDArray[Any]]):
    """Rows of an array of an HDF5 file, each read when it is used."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self.shape: tuple[int, ...] = dataset.shape[1:]
        self.dtype: np.dtype[Any] = dataset.dtype.newbyteorder("=")

    def __len__(self) -> int:
        return int(self._dataset.shape[0])

    def __getitem__(self, index: Any) -> Any:
        """A row, in native byte order."""
        return np.asarray(self._dataset[index], dtype=self.dtype)


@dataclass
class _Budget:
    """Remaining bytes of memory."""

    left: int


class Foreign:
    """A group of an open, untrusted HDF5 file; raises EpisodeError."""

    def __init__(self, group: Any, name: str, budget: _Budget | None = None) -> None:
        self._group = group
        self.name = name
        size = int(group.file.id.get_filesize())
        self._budget = budget or _Budget(max(SMALLEST, RATIO * size))

    def __contains__(self, key: str) -> bool:
        return self._group.get(key, getlink=True) is not None

    def __iter__(self) -> Iterator[str]:
        """Sorted names of its members."""
        return iter(sorted(self._group))

    def group(self, key: str) -> "Foreign":
        """The group ``key``."""
        import h5py

        found = self._linked(key)
        if not isinstance(found, h5py.Group):
            raise EpisodeError(f"{self._of(key)} is not a group")
        return Foreign(found, printable(key), self._budget)

    def array(self, key: str) -> NDArray[Any]:
        """The numeric array ``key``, in native byte order."""
        dataset = self._dataset(key)
        dtype = dataset.dtype
        if dtype.kind not in "biuf" or dtype.itemsize > 8:
            raise EpisodeError(f"{self._of(key)} holds {printable(dtype)}, expected numbers")
        return np.asarray(self._read(dataset, key), dtype=dtype.newbyteorder("="))

    def rows(self, key: str) -> "Rows":
        """The numeric array ``key``, read row by row; one row is in memory at a time."""
        dataset = self._dataset(key)
        dtype = dataset.dtype
        if dtype.kind not in "biuf" or dtype.itemsize > 8:
            raise EpisodeError(f"{self._of(key)} holds {printable(dtype)}, expected numbers")
        if dataset.ndim == 0:
            raise EpisodeError(f"{self._of(key)} is one number, expected one for each time")
        chunk = int(np.prod(dataset.chunks or (0,), dtype=object)) * dtype.itemsize
        row = int(np.prod(dataset.shape[1:], dtype=object)) * dtype.itemsize
        if max(chunk, row) > CHUNK:
            raise EpisodeError(
                f"{self._of(key)} has rows or chunks of {max(chunk, row) >> 20} MiB, expected at"
                f" most {CHUNK >> 20}"
            )
        gzip = self._gzip(dataset, key)
        if gzip is not None:
            self._check_decompressed_size(dataset, key, chunk, 1 << gzip)
        return Rows(dataset)

    def numbers(self) -> dict[str, float | bool]:
        """The attributes of the group that are one number or truth value each."""
        found: dict[str, float | bool] = {}
        for key in self._group.attrs:
            stated = self._group.attrs.get_id(key)
            if stated.shape == () and stated.dtype.kind in "biuf" and stated.dtype.itemsize <= 8:
                found[str(key)] = self._group.attrs[key].item()
        return found

    def texts(self, key: str) -> list[str]:
        """The strings of the array ``key``."""
        import h5py

        dataset = self._dataset(key)
        if dataset.size == 0:
            return []
        if h5py.check_string_dtype(dataset.dtype) is None:
            raise EpisodeError(
                f"{self._of(key)} holds {printable(dataset.dtype)}, expected strings"
            )
        items = np.asarray(self._read(dataset, key)).reshape(-1)
        return [self._text(item, self._of(key)) for item in items]

    def attribute(self, key: str) -> str | None:
        """The text of an attribute, None if it is missing."""
        import h5py

        where = f"the attribute {key!r} of {self.name}"
        if key not in self._group.attrs:
            return None
        stated = self._group.attrs.get_id(key)
        if stated.shape != () or h5py.check_string_dtype(stated.dtype) is None:
            raise EpisodeError(f"{where} is not a string")
        return self._text(self._group.attrs[key], where)

    def _of(self, key: str) -> str:
        return f"{printable(key)!r} in {self.name!r}"

    def _text(self, value: Any, where: str) -> str:
        try:
            text = value.decode() if isinstance(value, bytes) else str(value)
            text.encode()
        except UnicodeError as error:
            raise EpisodeError(f"{where} is not valid Unicode") from error
        if len(text) > TEXT:
            raise EpisodeError(f"{where} has {len(text)} characters, expected at most {TEXT}")
        return text

    def _linked(self, key: str) -> Any:
        import h5py

        if not isinstance(self._group.get(key, getlink=True), h5py.HardLink):
            raise EpisodeError(
                f"{self._of(key)} is a link to another location; store the data itself in the file"
            )
        return self._group[key]

    def _dataset(self, key: str) -> Any:
        import h5py

        found = self._linked(key)
        if not isinstance(found, h5py.Dataset):
            raise EpisodeError(f"{self._of(key)} is not an array")
        if found.is_virtual or found.external:
            raise EpisodeError(
                f"{self._of(key)} is stored in another file; store the data itself in this one"
            )
        return found

    def _read(self, dataset: Any, key: str) -> Any:
        chunk = int(np.prod(dataset.chunks or (0,), dtype=object)) * dataset.dtype.itemsize
        needed = max(int(dataset.nbytes), chunk)
        if needed > self._budget.left:
            raise EpisodeError(
                f"{self._of(key)} needs {needed >> 20} MiB of memory, "
                f"{self._budget.left >> 20} MiB remain for a demonstration of a file of this size"
            )
        self._budget.left -= needed
        gzip = self._gzip(dataset, key)
        if gzip is not None:
            self._check_decompressed_size(dataset, key, chunk, 1 << gzip)
        return dataset[()]

    def _gzip(self, dataset: Any, key: str) -> int | None:
        """Position of gzip among the filters of an array; EpisodeError for filters of others."""
        plist = dataset.id.get_create_plist()
        filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
        known = {_GZIP, _SHUFFLE, _CHECKSUM}
        if len(set(filters)) != len(filters) or not set(filters) <= known:
            raise EpisodeError(
                f"{self._of(key)} uses unsupported compression; repack the file with "
                "h5repack -f GZIP=4"
            )
        return filters.index(_GZIP) if _GZIP in filters else None

    def _check_decompressed_size(self, dataset: Any, key: str, chunk: int, skipped: int) -> None:
        """EpisodeError if a chunk decompresses to more than its declared size."""
        for index in range(dataset.id.get_num_chunks()):
            info = dataset.id.get_chunk_info(index)
            if info.filter_mask & skipped:
                continue
            _, packed = dataset.id.read_direct_chunk(info.chunk_offset)
            most = chunk + 8  # with a checksum, if its filter ran before gzip
            if len(zlib.decompressobj().decompress(packed, most + 1)) > most:
                raise EpisodeError(f"{self._of(key)} decompresses to more than its declared size")
