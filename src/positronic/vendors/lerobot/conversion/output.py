"""Output of a conversion: a local directory, or ``s3://bucket/key``."""

import hashlib
from pathlib import Path

from foundation import storage
from foundation.cache import cache_root
from foundation.errors import StorageError
from foundation.storage.paths import remote
from foundation.storage.s3.cache import directory_of
from positronic.errors import DatasetError
from positronic.vendors.lerobot.conversion import durable, provenance
from positronic.vendors.lerobot.conversion.job import WorkDirectory
from positronic.vendors.lerobot.conversion.provenance import Provenance

# Rewritten by every append and repair; their digest identifies a state of the dataset.
STATE = ("meta/info.json", "meta/stats.json", provenance.NAME)


def state_of(dataset: Path) -> str:
    """A digest of the state of the dataset in a directory."""
    digest = hashlib.sha256()
    for name in STATE:
        if (dataset / name).is_file():
            digest.update((dataset / name).read_bytes())
    return digest.hexdigest()


class Output:
    """Location of the dataset, and its work directory.

    The work directory is beside a local dataset; for one on S3 it is in the local cache.
    """

    def __init__(self, path: str | Path) -> None:
        self.is_remote = storage.is_remote(path)
        # Resolved, because a symbolic link to the directory may be on another disk.
        self.uri = storage.join(path) if self.is_remote else str(storage.local(path).resolve())

    def __str__(self) -> str:
        return self.uri

    def work_dir(self) -> WorkDirectory:
        """The work directory of this output."""
        if self.is_remote:
            name = directory_of(remote(self.uri)).name
            return WorkDirectory(cache_root() / "positronic" / "conversions" / name, self.uri)
        place = Path(self.uri)
        return WorkDirectory(place.parent / f".{place.name}.partial", self.uri)

    def exists(self) -> bool:
        """Return whether anything exists there."""
        return storage.exists(self.uri)

    def is_complete(self) -> bool:
        """Return whether a complete dataset is there, not an interrupted publication."""
        return storage.is_whole(self.uri)

    def require_writable(self, work_dir: WorkDirectory) -> None:
        """Check before the conversion that output and work directory are writable.

        Raises:
            StorageError: one of them is not.
        """
        if not self.is_remote:
            storage.require_writable(self.uri)
        storage.require_writable(work_dir.directory)

    def provenance(self) -> Provenance | None:
        """The provenance of the existing dataset; None if it is not one of ours."""
        try:
            return Provenance.parse(storage.read_bytes(storage.join(self.uri, provenance.NAME)))
        except (StorageError, DatasetError, OSError):
            return None

    def put(self, dataset: Path) -> None:
        """Move or publish the finished directory ``dataset`` to the output, atomically."""
        if self.is_remote:
            storage.publish(dataset, self.uri)
        else:
            self._require_free()
            durable.rename(dataset, Path(self.uri))

    @staticmethod
    def decides(name: str) -> bool:
        """Return whether a file is part of the digest of the dataset's state."""
        return name in STATE

    def swap(self, work_dir: WorkDirectory) -> None:
        """Replace the existing dataset by that of the work directory.

        A reader finds the one or the other. If the system cannot exchange directories, there is a
        moment without either; a kill then is repaired by the next process, see `settle`.
        """
        place = Path(self.uri)
        if self.is_remote:
            storage.publish(work_dir.dataset, self.uri, replace=True)
        elif not durable.exchange(work_dir.dataset, place):
            durable.rename(place, work_dir.replaced)
            durable.rename(work_dir.dataset, place)

    def settle(self) -> None:
        """Finish a swap that was killed between its two renames; call before reading.

        Raises:
            StorageError: another process holds the lock.
        """
        if not self.is_remote and self.work_dir().is_between:
            with self.work_dir().locked():
                pass

    def _require_free(self) -> None:
        if self.exists():
            raise StorageError(
                f"{self} was created meanwhile by another process; nothing was written to it"
            )
