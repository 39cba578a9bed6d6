"""What a published directory holds: an object beside its files, by which readers see it whole.

It is written first, saying that the rest is still to come, and last, with the name, size and
SHA-256 of every file; with that last write readers see the new content. While a file's new content
waits under another key, the manifest says under which.
"""

import json
from dataclasses import dataclass
from typing import Any, Self

from getiaction.errors import GetiactionError
from getiaction.storage import objects
from getiaction.storage.location import Location

MANIFEST = ".published.json"
STAGED = ".publishing"
FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """A file: its size in bytes, its SHA-256, and its key below the prefix if not its name."""

    size: int
    sha256: str
    key: str | None = None

    def same(self, other: "Entry | None") -> bool:
        """Whether both are of one content, wherever it lies."""
        return other is not None and (self.size, self.sha256) == (other.size, other.sha256)


@dataclass(frozen=True)
class Manifest:
    """The files of a directory by name, and whether all of them are there."""

    whole: bool
    files: dict[str, Entry]
    etag: str | None = None

    def same(self, files: dict[str, Entry]) -> bool:
        """Whether it names exactly these files with this content."""
        return self.files.keys() == files.keys() and all(
            entry.same(files[name]) for name, entry in self.files.items()
        )

    @property
    def staged(self) -> dict[str, Entry]:
        """The files whose content waits under another key."""
        return {name: entry for name, entry in self.files.items() if entry.key is not None}

    def to_bytes(self) -> bytes:
        """Write it as JSON."""
        files = {
            name: {"size": entry.size, "sha256": entry.sha256}
            | ({"key": entry.key} if entry.key else {})
            for name, entry in sorted(self.files.items())
        }
        document = {"format": FORMAT, "whole": self.whole, "files": files}
        return json.dumps(document, indent=1).encode()

    @classmethod
    def from_bytes(cls, content: bytes, etag: str, where: Location) -> Self:
        """Read it from JSON.

        Raises:
            GetiactionError: it is none, or of a later format.
        """
        try:
            document: Any = json.loads(content)
            if document["format"] != FORMAT:
                raise GetiactionError(
                    f"{where / MANIFEST} is of format {document['format']}; expected {FORMAT}, so "
                    "a newer version has written it"
                )
            files = {name: Entry(**entry) for name, entry in document["files"].items()}
            return cls(bool(document["whole"]), files, etag)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise GetiactionError(f"{where / MANIFEST} is no manifest: {error!r}") from error


def read_manifest(location: Location) -> Manifest | None:
    """Return the manifest of what was published there; None where nothing was."""
    found = objects.read(location / MANIFEST)
    return None if found is None else Manifest.from_bytes(*found, location)


def is_own(name: str) -> bool:
    """Whether a name belongs to publishing, not to what is published."""
    parts = name.split("/")
    return parts[-1] == MANIFEST or STAGED in parts
