"""Snapshot of the files at an S3 address: by the manifest if published, else by listing it."""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property

from foundation.errors import Forbidden, NotFound, StorageError
from foundation.storage.s3 import objects
from foundation.storage.s3.location import Location
from foundation.storage.s3.manifest import Manifest, is_own, read_manifest
from foundation.storage.s3.objects import Stored


@dataclass(frozen=True)
class File:
    """A file at an address: the location of its object, and its size and digests."""

    location: Location
    stored: Stored

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return self.stored.size

    @property
    def identity(self) -> str:
        """An identifier that changes with the content."""
        return self.stored.sha256 or f"{self.stored.size} {self.stored.etag}"


@dataclass(frozen=True)
class Snapshot:
    """The files below an address, by name, at one moment."""

    location: Location
    files: dict[str, File]
    published: bool

    @cached_property
    def version(self) -> str:
        """An identifier that changes with the names and content."""
        known = [(name, file.identity) for name, file in sorted(self.files.items())]
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]


def take_snapshot(location: Location) -> Snapshot:
    """List the files below an address.

    Raises:
        NotFound: nothing does.
        StorageError: a publication there is unfinished, or it cannot be read.
    """
    manifest = read_manifest(location) if location.key else None
    return (_part_above(location) if manifest is None else None) or snapshot_of(location, manifest)


def _part_above(location: Location) -> Snapshot | None:
    """List a directory within a published one, by that one's manifest; None if in none."""
    names = location.key.split("/")
    for depth in range(len(names) - 1, 0, -1):
        above = replace(location, key="/".join(names[:depth]))
        prefix = "/".join(names[depth:]) + "/"
        try:
            manifest = read_manifest(above)
        except Forbidden:
            return None  # credentials for this prefix only
        if manifest is not None and any(name.startswith(prefix) for name in manifest.files):
            files = snapshot_of(above, manifest).files.items()
            part = {n.removeprefix(prefix): file for n, file in files if n.startswith(prefix)}
            return Snapshot(location, part, True)
    return None


def snapshot_of(location: Location, manifest: Manifest | None) -> Snapshot:
    """List the files below an address whose manifest has been read; None if it has none.

    Raises:
        NotFound: nothing does.
        StorageError: the publication is unfinished, or it cannot be listed.
    """
    if manifest is None:
        files = {
            name: File(location / name, stored)
            for name, stored in objects.list_objects(location).items()
            if not is_own(name)
        }
        if not files:
            raise NotFound(f"there is nothing at {location}: no objects have that prefix")
        return Snapshot(location, files, False)
    if not manifest.whole:
        raise StorageError(
            f"{location} is unfinished: what published it was stopped, or is at it; run that again"
        )
    files = {
        name: File(location / (entry.key or name), Stored(entry.size, "", entry.sha256))
        for name, entry in manifest.files.items()
    }
    return Snapshot(location, files, True)


def snapshot_of_object(location: Location) -> Snapshot:
    """Return a snapshot of one object, under its own name.

    Raises:
        NotFound: there is none.
    """
    stored = objects.head(location)
    if stored is None:
        raise NotFound(f"there is no file {location}")
    return Snapshot(location, {location.key.rpartition("/")[2]: File(location, stored)}, False)
