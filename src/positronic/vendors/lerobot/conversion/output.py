"""Output of a conversion: a local directory, or ``s3://bucket/key``."""

import hashlib
from pathlib import Path

from foundation import storage
from foundation.cache import cache_root
from foundation.errors import StorageError
from foundation.storage.s3 import Location
from foundation.storage.s3.cache import directory_of
from positronic.errors import DatasetError
from positronic.vendors.lerobot.conversion import durable, provenance
from positronic.vendors.lerobot.conversion.job import Workplace
from positronic.vendors.lerobot.conversion.provenance import Provenance

# Rewritten by every append and repair; the digest of these tells one state of a dataset from
# another.
STATE = ("meta/info.json", "meta/stats.json", provenance.NAME)


def state_of(dataset: Path) -> str:
    """A digest of the state of the dataset in a directory."""
    digest = hashlib.sha256()
    for name in STATE:
        if (dataset / name).is_file():
            digest.update((dataset / name).read_bytes())
    return digest.hexdigest()


class Output:
    """The dataset's place, and the directory in which it is prepared.

    A local one is prepared beside its place, one on S3 in the cache of this machine.
    """

    def __init__(self, path: str | Path) -> None:
        self.is_remote = storage.is_remote(path)
        # Beside the directory itself, not beside a link to it, which may be on another disk.
        self.uri = storage.join(path) if self.is_remote else str(storage.local(path).resolve())

    def __str__(self) -> str:
        return self.uri

    def workplace(self) -> Workplace:
        """The directory in which a dataset for this place is prepared."""
        if self.is_remote:
            name = directory_of(Location.parse(self.uri)).name
            return Workplace(cache_root() / "positronic" / "conversions" / name, self.uri)
        place = Path(self.uri)
        return Workplace(place.parent / f".{place.name}.partial", self.uri)

    def exists(self) -> bool:
        """Whether anything is there."""
        return storage.exists(self.uri)

    def is_whole(self) -> bool:
        """Whether what is there can be read: not one whose publication was stopped."""
        return storage.is_whole(self.uri)

    def require_writable(self, workplace: Workplace) -> None:
        """Refuse a place that could not be written to, before the work.

        Raises:
            StorageError: it could not, or the directory in which the work is done.
        """
        if not self.is_remote:
            storage.require_writable(self.uri)
        storage.require_writable(workplace.directory)

    def provenance(self) -> Provenance | None:
        """The provenance of the dataset that is there; None if it is not one of ours."""
        try:
            return Provenance.parse(storage.read_bytes(storage.join(self.uri, provenance.NAME)))
        except (StorageError, DatasetError, OSError):
            return None

    def put(self, dataset: Path) -> None:
        """Give the finished directory ``dataset`` its place, whole or not at all."""
        if self.is_remote:
            storage.publish(dataset, self.uri)
        else:
            self._require_free()
            durable.rename(dataset, Path(self.uri))

    @staticmethod
    def decides(name: str) -> bool:
        """Whether a file of the dataset tells one state of it from another."""
        return name in STATE

    def swap(self, workplace: Workplace) -> None:
        """Put the workplace's dataset in the place of the one that is there.

        A reader finds the one or the other. Where the system cannot swap directories, there is a
        moment without either; a kill in it is mended by whoever comes next, see `settle`.
        """
        place = Path(self.uri)
        if self.is_remote:
            storage.publish(workplace.dataset, self.uri, replace=True)
        elif not durable.exchange(workplace.dataset, place):
            durable.rename(place, workplace.replaced)
            durable.rename(workplace.dataset, place)

    def settle(self) -> None:
        """Finish a swap that was killed between its two renames; to be called before looking.

        Raises:
            StorageError: a process is at it just now.
        """
        if not self.is_remote and self.workplace().is_between:
            with self.workplace().locked():
                pass

    def _require_free(self) -> None:
        if self.exists():
            raise StorageError(f"{self} appeared meanwhile; nothing was written into it")
