"""Publish a directory to S3 atomically: readers see the old content or the new, never a mix.

To a new prefix, a manifest marked incomplete is written first, then the files, then the manifest
that names them all. Over existing content, changed files are first uploaded to staging keys;
writing the manifest that points there is the commit; then the files are copied to their plain
names, so that tools that ignore the manifest find them too. Every manifest is written conditionally
on the one that was read (``If-Match``), so the later of two concurrent publishers fails. All steps
are idempotent: a publication that was killed is completed by publishing the same directory again.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from foundation.errors import NotFound, PreconditionFailed, StorageError
from foundation.storage.s3 import objects
from foundation.storage.s3.digests import Digest, digest
from foundation.storage.s3.location import Location, leads_elsewhere
from foundation.storage.s3.manifest import MANIFEST, STAGED, Entry, Manifest, is_own, read_manifest
from foundation.storage.s3.progress import progress
from foundation.storage.s3.snapshot import snapshot_of
from foundation.storage.s3.transfer import in_parallel, send

# Someone else's publication of the same files may be ahead by a step, a few times.
ROUNDS = 5


def remove(url: str, names: Iterable[str]) -> None:
    """Remove the files of these names below ``url``.

    They are taken out of the manifest before they are deleted, so that readers find it complete at
    all times; with the last file the manifest is deleted too.

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


def publish(directory: Path, url: str, *, replace: bool = False, over: str | None = None) -> None:
    """Make the files of ``directory`` the content of ``url``.

    Only the copies that publishing itself has staged are removed: files that are no longer part of
    the content stay in S3, unseen by readers that follow the manifest.

    Args:
        directory: All regular files below it are published.
        url: ``s3://bucket/prefix``.
        replace: Whether existing content may be replaced.
        over: Replace only this version; see ``Snapshot.version``.

    Raises:
        StorageError: there is nothing to publish, something else is there, someone else
            publishes there at the same time, or S3 refuses.
    """
    publication = Publication(directory, Location.parse(url))
    for _ in range(ROUNDS):
        try:
            return publication.advance(may_replace=replace, over=over)
        except PreconditionFailed as error:
            overtaken = error
    raise StorageError(
        f"{url} was not published: someone else writes there at the same time ({overtaken})"
    )


class Publication:
    """Publication of one directory to one address.

    Attributes:
        digests: The digests of its files, by name.
        files: The same as entries of a manifest.
        place: Prefix of its staging keys; it depends on the content.
    """

    def __init__(self, directory: Path, location: Location) -> None:
        self.directory, self.location = directory, location
        self.digests = _digests(directory)
        self.files = {name: Entry(found.size, found.sha256) for name, found in self.digests.items()}
        content = json.dumps({name: entry.sha256 for name, entry in self.files.items()})
        self.place = f"{STAGED}/{hashlib.sha256(content.encode()).hexdigest()[:16]}"

    def advance(self, *, may_replace: bool, over: str | None = None) -> None:
        """Continue from the state in S3 to the end."""
        current = read_manifest(self.location)
        if current is None and not self._is_taken():
            current = self._write(Manifest(False, self.files), None)
        if current is not None and current.same(self.files):
            self._complete(current, may_replace)
            return
        if not may_replace:
            raise StorageError(self._refusal(current))
        if over is not None and over != snapshot_of(self.location, current).version:
            raise StorageError(f"{self.location} was not published: it has changed meanwhile")
        if current is not None and current.whole:
            current = self._settle(current)
        self._settle(self._stage(current))

    def _complete(self, current: Manifest, may_replace: bool) -> None:
        """Upload what is missing of the same files, published already or in part."""
        if current.whole:
            self._settle(current)
            self._send({name: name for name in self.files}, if_absent=False)
            self._clean()
            return
        try:
            self._send({name: name for name in self.files}, if_absent=not may_replace)
        except PreconditionFailed as error:
            raise StorageError(
                f"{self.location} has files that no manifest names; publish elsewhere or ask to "
                f"replace them ({error})"
            ) from error
        self._write(Manifest(True, self.files), current)

    def _stage(self, current: Manifest | None) -> Manifest:
        """Upload changed files to staging keys, then write the manifest that points there."""
        old = current.files if current is not None and current.whole else {}
        keys = {
            name: f"{self.place}/{entry.sha256}"
            for name, entry in self.files.items()
            if not entry.same(old.get(name))
        }
        self._send(keys, if_absent=False)
        files = {name: replace(entry, key=keys.get(name)) for name, entry in self.files.items()}
        return self._write(Manifest(True, files), current)

    def _settle(self, current: Manifest) -> Manifest:
        """Copy staged files to their plain names."""
        staged = current.staged
        if not staged:
            return current

        def settle(name: str) -> None:
            entry = staged[name]
            stored = objects.Stored(entry.size, "", entry.sha256)
            try:
                objects.copy(self.location / str(entry.key), self.location / name, stored)
            except NotFound as error:
                raise PreconditionFailed(str(error)) from error  # another publisher has settled it

        in_parallel(settle, staged)
        plain = {name: replace(entry, key=None) for name, entry in current.files.items()}
        settled = self._write(Manifest(True, plain), current)
        objects.remove([self.location / key for key in {str(e.key) for e in staged.values()}])
        return settled

    def _clean(self) -> None:
        """Remove files staged by an earlier, killed attempt at this publication."""
        left = objects.list_objects(self.location / self.place)
        objects.remove([self.location / self.place / name for name in left])

    def _send(self, keys: dict[str, str], *, if_absent: bool) -> None:
        """Upload the files to their keys, except those already there."""
        there = objects.list_objects(self.location)
        total = sum(self.files[name].size for name in keys)
        with progress(f"publishing {self.location}", len(keys), total) as advance:

            def send_one(name: str) -> None:
                key, wanted = keys[name], self.digests[name]
                target = self.location / key
                if key in there and objects.holds(target, wanted):
                    advance(wanted.size)
                    return
                send(self.directory / name, wanted, target, if_absent=if_absent, advance=advance)

            in_parallel(send_one, keys)

    def _write(self, manifest: Manifest, over: Manifest | None) -> Manifest:
        etag = objects.write(
            self.location / MANIFEST,
            manifest.to_bytes(),
            if_absent=over is None,
            if_match=None if over is None else over.etag,
        )
        return replace(manifest, etag=etag)

    def _is_taken(self) -> bool:
        """Return whether objects without a manifest lie there."""
        if objects.head(self.location) is not None:
            raise StorageError(f"{self.location} is a file; expected a name for a directory")
        if not objects.list_objects(self.location, at_most=1):
            return False
        if read_manifest(self.location) is not None:
            raise PreconditionFailed("another publication has just begun")
        return True

    def _refusal(self, current: Manifest | None) -> str:
        if current is None:
            return (
                f"{self.location} holds files already; choose another name or ask to replace them"
            )
        state = "something else" if current.whole else "an unfinished publication of something else"
        return f"{self.location} holds {state}; choose another name or ask to replace it"


def _digests(directory: Path) -> dict[str, Digest]:
    if not directory.is_dir():
        raise StorageError(f"there is no directory {directory} to publish")
    names: dict[str, Path] = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_dir() and path.is_symlink():
            raise StorageError(f"{path} is a link to a directory, which S3 has not; remove it")
        if path.is_dir():
            continue
        if not path.is_file():
            raise StorageError(f"{path} cannot be published: it is not a regular file")
        if is_own(name) or leads_elsewhere(name):
            raise StorageError(f"{path} cannot be published under that name; rename it")
        names[name] = path
    if not names:
        raise StorageError(f"there is nothing to publish: {directory} has no files")
    digests: dict[str, Digest] = {}
    in_parallel(lambda name: digests.update({name: digest(names[name])}), names)
    return {name: digests[name] for name in names}
