"""Manifest of a published directory: an object beside its files that makes it atomic.

It is written first, marked incomplete, and last, with the name, size and SHA-256 of every file;
with that last write readers see the new content. While a file's new content is staged under another
key, the manifest names that key.

Anyone who can write to the bucket may have written it: names and keys are checked before use.
"""

import json
from dataclasses import dataclass
from typing import Annotated, NotRequired, Self, TypedDict

from pydantic import AfterValidator, Field

from foundation.documents import Document, Reader, RelativeName
from foundation.errors import StorageError
from foundation.storage.s3 import objects
from foundation.storage.s3.location import Location, clash

MANIFEST = ".published.json"
STAGED = ".publishing"
FORMAT = 1

# Two million files of 250 bytes and eight values each.
READER = Reader(
    error=StorageError,
    mend="use the version that published it, or remove that object and publish again",
    size=500 << 20,
    depth=8,
    values=16_000_000,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A file: its size in bytes, its SHA-256, and its key below the prefix if not its name."""

    size: int
    sha256: str
    key: str | None = None

    def same(self, other: "Entry | None") -> bool:
        """Return whether both have the same content, wherever it is stored."""
        return other is not None and (self.size, self.sha256) == (other.size, other.sha256)


@dataclass(frozen=True)
class Manifest:
    """The files of a directory by name, and whether all of them are there."""

    whole: bool
    files: dict[str, Entry]
    etag: str | None = None

    def same(self, files: dict[str, Entry]) -> bool:
        """Return whether it names exactly these files with this content."""
        return self.files.keys() == files.keys() and all(
            entry.same(files[name]) for name, entry in self.files.items()
        )

    @property
    def staged(self) -> dict[str, Entry]:
        """The files whose content is staged under another key."""
        return {name: entry for name, entry in self.files.items() if entry.key is not None}

    def to_bytes(self) -> bytes:
        """Return it as JSON."""
        files = {
            name: {"size": entry.size, "sha256": entry.sha256}
            | ({"key": entry.key} if entry.key else {})
            for name, entry in sorted(self.files.items())
        }
        document = {"format": FORMAT, "whole": self.whole, "files": files}
        return json.dumps(document, indent=1).encode()

    @classmethod
    def from_bytes(cls, content: bytes, etag: str, where: Location) -> Self:
        """Parse it from JSON.

        Raises:
            StorageError: it is invalid, or of a later format.
        """
        document = READER.parse_json(content, _Published, str(where / MANIFEST))
        if both := clash(document.files):
            raise READER.refusal(
                f"{where / MANIFEST} names both {both[0]} and {both[1]}, which no directory holds"
            )
        files = {
            name: Entry(entry["size"], entry["sha256"], entry.get("key"))
            for name, entry in document.files.items()
        }
        return cls(document.whole, files, etag)


def read_manifest(location: Location) -> Manifest | None:
    """Return the manifest of the directory published there; None if none was.

    Raises:
        StorageError: it is invalid, or of a later format.
    """
    found = objects.read(location / MANIFEST, at_most=READER.size)
    return None if found is None else Manifest.from_bytes(*found, location)


def is_own(name: str) -> bool:
    """Return whether a name is internal to publishing, not part of the published content."""
    parts = name.split("/")
    return parts[-1] == MANIFEST or STAGED in parts


def _format(number: int) -> int:
    if number != FORMAT:
        raise ValueError(f"expected {FORMAT}, so that a newer version has written it")
    return number


def _not_own(name: str) -> str:
    if is_own(name):
        raise ValueError("expected the name of a file that was published")
    return name


class _Entry(TypedDict):
    size: Annotated[int, Field(ge=0, lt=2**63)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    # Only keys that publishing itself stages, since it removes them afterwards.
    key: NotRequired[
        Annotated[str, Field(pattern=rf"^\{STAGED}/[0-9a-f]{{16}}/[0-9a-f]{{64}}$")] | None
    ]


class _Published(Document):
    format: Annotated[int, AfterValidator(_format)]
    whole: bool
    files: dict[Annotated[RelativeName, AfterValidator(_not_own)], _Entry]
