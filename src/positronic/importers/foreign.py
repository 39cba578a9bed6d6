"""HDF5 reader for untrusted files: no links to other files, bounded memory.

An HDF5 file may hold links, raw data and virtual data of other files, which the library follows
without a word; and a few bytes in it may declare, or unpack to, any amount of memory. All of these
are looked for before anything is read.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.text import printable
from positronic.errors import EpisodeError

# What the arrays of one demonstration may take in memory: always SMALLEST, else RATIO times the
# file. Pictures are packed to a half or a tenth; what repeats takes no room in any case.
SMALLEST = 512 << 20
RATIO = 20
TEXT = 16 << 20  # bytes of a text, such as the XML of a model
_GZIP, _SHUFFLE, _CHECKSUM = 1, 2, 3  # HDF5's numbers of its filters


@dataclass
class _Budget:
    """Bytes of memory that are left."""

    left: int


class Foreign:
    """A group of an open HDF5 file, read with care; its errors are EpisodeError."""

    def __init__(self, group: Any, name: str, budget: _Budget | None = None) -> None:
        self._group = group
        self.name = name
        size = int(group.file.id.get_filesize())
        self._budget = budget or _Budget(max(SMALLEST, RATIO * size))

    def __contains__(self, key: str) -> bool:
        return self._group.get(key, getlink=True) is not None

    def __iter__(self) -> Iterator[str]:
        """Names in it, sorted."""
        return iter(sorted(self._group))

    def group(self, key: str) -> "Foreign":
        """The group ``key``."""
        import h5py

        found = self._linked(key)
        if not isinstance(found, h5py.Group):
            raise EpisodeError(f"{self._of(key)} is no group")
        return Foreign(found, printable(key), self._budget)

    def array(self, key: str) -> NDArray[Any]:
        """The numbers of the array ``key``, in the byte order of this machine."""
        dataset = self._dataset(key)
        dtype = dataset.dtype
        if dtype.kind not in "biuf" or dtype.itemsize > 8:
            raise EpisodeError(f"{self._of(key)} holds {printable(dtype)}, expected numbers")
        return np.asarray(self._read(dataset, key), dtype=dtype.newbyteorder("="))

    def texts(self, key: str) -> list[str]:
        """The texts of the list ``key``."""
        import h5py

        dataset = self._dataset(key)
        if dataset.size == 0:
            return []
        if h5py.check_string_dtype(dataset.dtype) is None:
            raise EpisodeError(f"{self._of(key)} holds {printable(dataset.dtype)}, expected texts")
        items = np.asarray(self._read(dataset, key)).reshape(-1)
        return [self._text(item, self._of(key)) for item in items]

    def attribute(self, key: str) -> str | None:
        """The text of an attribute, None without one."""
        import h5py

        where = f"the attribute {key!r} of {self.name}"
        if key not in self._group.attrs:
            return None
        stated = self._group.attrs.get_id(key)
        if stated.shape != () or h5py.check_string_dtype(stated.dtype) is None:
            raise EpisodeError(f"{where} is no text")
        return self._text(self._group.attrs[key], where)

    def _of(self, key: str) -> str:
        return f"{printable(key)!r} in {self.name!r}"

    def _text(self, value: Any, where: str) -> str:
        try:
            text = value.decode() if isinstance(value, bytes) else str(value)
            text.encode()
        except UnicodeError as error:
            raise EpisodeError(f"{where} is not Unicode") from error
        if len(text) > TEXT:
            raise EpisodeError(f"{where} has {len(text)} characters, expected at most {TEXT}")
        return text

    def _linked(self, key: str) -> Any:
        import h5py

        if not isinstance(self._group.get(key, getlink=True), h5py.HardLink):
            raise EpisodeError(
                f"{self._of(key)} is a link to another place; put the data itself into the file"
            )
        return self._group[key]

    def _dataset(self, key: str) -> Any:
        import h5py

        found = self._linked(key)
        if not isinstance(found, h5py.Dataset):
            raise EpisodeError(f"{self._of(key)} is no array")
        if found.is_virtual or found.external:
            raise EpisodeError(
                f"{self._of(key)} is kept in another file; put the data itself into this one"
            )
        return found

    def _read(self, dataset: Any, key: str) -> Any:
        chunk = int(np.prod(dataset.chunks or (0,), dtype=object)) * dataset.dtype.itemsize
        needed = max(int(dataset.nbytes), chunk)
        if needed > self._budget.left:
            raise EpisodeError(
                f"{self._of(key)} would take {needed >> 20} MiB of memory, with "
                f"{self._budget.left >> 20} left for a demonstration of a file of this size"
            )
        self._budget.left -= needed
        plist = dataset.id.get_create_plist()
        filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
        known = {_GZIP, _SHUFFLE, _CHECKSUM}
        if len(set(filters)) != len(filters) or not set(filters) <= known:
            raise EpisodeError(
                f"{self._of(key)} is packed in a way that is not read here; repack the file with "
                "h5repack -f GZIP=4"
            )
        if _GZIP in filters:
            self._unpacks(dataset, key, chunk, 1 << filters.index(_GZIP))
        return dataset[()]

    def _unpacks(self, dataset: Any, key: str, chunk: int, skipped: int) -> None:
        """EpisodeError where a chunk unpacks to more than it is: the library would unpack it."""
        for index in range(dataset.id.get_num_chunks()):
            place = dataset.id.get_chunk_info(index)
            if place.filter_mask & skipped:
                continue
            _, packed = dataset.id.read_direct_chunk(place.chunk_offset)
            most = chunk + 8  # a checksum, where that was added first
            if len(zlib.decompressobj().decompress(packed, most + 1)) > most:
                raise EpisodeError(f"{self._of(key)} unpacks to more than it declares")
