"""Tree of the files below an S3 address: listed once, each file fetched on demand.

For datasets whose files are read one after the other: nothing is listed again, and each part of a
tree is fetched by itself, so that processes can fetch several at once.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

from foundation.storage.paths import remote, translated
from foundation.storage.s3.cache import unpin
from foundation.storage.s3.location import Location
from foundation.storage.s3.mirror import Mirror
from foundation.storage.s3.snapshot import File, Snapshot, take_snapshot

# Parts pinned against eviction; each takes an open file, of which there are 1024.
HELD = 64

_held: "OrderedDict[Path, None]" = OrderedDict()
_lock = threading.Lock()


class Tree:
    """Files below an address as they were when it was listed. Picklable."""

    def __init__(self, location: Location, files: Mapping[str, File]) -> None:
        self._snapshot = Snapshot(location, dict(files), False)
        self._directory: Path | None = None

    @classmethod
    @translated()
    def at(cls, uri: str) -> Self:
        """List the files now there, by the manifest if published.

        Raises:
            StorageError: nothing is there, its publication was stopped, or it cannot be read.
        """
        snapshot = take_snapshot(remote(uri))
        return cls(snapshot.location, snapshot.files)

    @property
    def uri(self) -> str:
        """The address."""
        return str(self._snapshot.location)

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes by name below the address."""
        return {name: file.size for name, file in self._snapshot.files.items()}

    def part(self, directory: str, names: Iterable[str]) -> Self:
        """Return the files ``names`` of ``directory`` as a tree of their own."""
        location = self._snapshot.location
        prefix = f"{directory}/" if directory else ""
        files = {name: self._snapshot.files[prefix + name] for name in names}
        return type(self)(location / directory if directory else location, files)

    @translated()
    def fetch(self, names: Iterable[str]) -> Path:
        """Return a local directory with these files, fetching those that are not in the cache.

        It may be evicted once this process has fetched from ``HELD`` other parts.

        Raises:
            StorageError: one cannot be read, or has changed since.
        """
        names = list(names)
        # Files there are complete and of this version: no need to look them up in the cache.
        if self._directory and all((self._directory / name).is_file() for name in names):
            return self._directory
        mirror = Mirror(self._snapshot)
        self._directory = directory = mirror.fetch(names)
        with _lock:
            _held[mirror.version] = None
            _held.move_to_end(mirror.version)
            while len(_held) > HELD:
                unpin(_held.popitem(last=False)[0])
        return directory
