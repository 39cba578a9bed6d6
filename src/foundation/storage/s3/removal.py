"""Remove files from S3 by name, and from the manifest of what was published."""

from collections.abc import Iterable
from dataclasses import replace

from foundation.errors import PreconditionFailed, StorageError
from foundation.storage.s3 import objects
from foundation.storage.s3.location import Location
from foundation.storage.s3.manifest import MANIFEST, Manifest, read_manifest


def remove(url: str, names: Iterable[str]) -> None:
    """Remove the files of these names below ``url``.

    What was published names them no more before they go, so that readers find it whole at all
    times; with the last one the manifest goes too.

    Raises:
        StorageError: one of the names is not there, in which case nothing is removed, or S3
            refuses.
    """
    location, wanted = Location.parse(url), set(names)
    manifest = read_manifest(location)
    known = set(objects.list_objects(location))
    known |= set(manifest.files) if manifest is not None else set()
    if missing := sorted(wanted - known):
        raise StorageError(f"{location} has no {', '.join(missing)}; nothing was removed")
    keys = set(wanted)
    if manifest is not None:
        keys |= {
            entry.key for name, entry in manifest.files.items() if name in wanted and entry.key
        }
        _forget(location, manifest, wanted)
        if manifest.files.keys() <= wanted:
            keys.add(MANIFEST)
    objects.remove([location / key for key in sorted(keys)])


def _forget(location: Location, manifest: Manifest, names: set[str]) -> None:
    left = {name: entry for name, entry in manifest.files.items() if name not in names}
    if len(left) == len(manifest.files):
        return
    content = replace(manifest, files=left).to_bytes()
    try:
        objects.write(location / MANIFEST, content, if_match=manifest.etag)
    except PreconditionFailed as error:
        raise StorageError(f"nothing was removed from {location}: {error}") from error
