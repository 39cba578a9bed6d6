"""File digests: SHA-256, MD5, and the ETag that S3 gives to an upload in parts."""

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MIB = 2**20
# A larger file is sent in parts of this size: S3 takes at most 5 GiB at once, and 10,000 parts.
PART = 16 * MIB
MAX_PARTS = 10_000


@dataclass(frozen=True)
class Part:
    """A part of a file: its offset, its length in bytes, and its digests."""

    offset: int
    size: int
    md5: bytes
    sha256: bytes

    @property
    def checksum(self) -> str:
        """The SHA-256 in base64, as S3 writes it."""
        return base64.b64encode(self.sha256).decode()

    @property
    def headers(self) -> dict[str, str]:
        """Checksum headers of its upload, by which S3 rejects damaged content.

        Services that do not know SHA-256 know MD5.
        """
        content_md5 = base64.b64encode(self.md5).decode()
        return {"ContentMD5": content_md5, "ChecksumSHA256": self.checksum}


@dataclass(frozen=True)
class Digest:
    """Digest of a file: its size in bytes, its SHA-256 in hex, and the parts it is sent in."""

    size: int
    sha256: str
    parts: tuple[Part, ...]

    @property
    def etag(self) -> str:
        """S3's ETag of this content when sent in these parts."""
        return joined_etag([part.md5 for part in self.parts])


def digest(path: Path) -> Digest:
    """Return all digests of a file, reading it once."""
    size = path.stat().st_size
    part_size = max(PART, -(-size // MAX_PARTS))
    if size <= part_size:
        part = next(_parts(path, size + 1, None))
        return Digest(part.size, part.sha256.hex(), (part,))
    whole = hashlib.sha256()
    parts = tuple(_parts(path, part_size, whole))
    return Digest(sum(part.size for part in parts), whole.hexdigest(), parts)


def etag_of(path: Path, part_size: int | None) -> str:
    """Return S3's ETag of a file sent in parts of ``part_size`` bytes; None for a single PUT."""
    if part_size is None:
        with path.open("rb") as content:
            return hashlib.file_digest(content, "md5").hexdigest()
    parts = _parts(path, part_size, None)
    return joined_etag([part.md5 for part in parts], several=True)


def joined_etag(md5s: list[bytes], *, several: bool = False) -> str:
    """Return S3's ETag: the MD5, or for several parts the MD5 of their MD5s, and their number."""
    if len(md5s) == 1 and not several:
        return md5s[0].hex()
    return f"{hashlib.md5(b''.join(md5s)).hexdigest()}-{len(md5s)}"


def is_md5(etag: str) -> bool:
    """Return whether an ETag may be an MD5; not with several parts or other encryption."""
    return len(etag) == 32 and set(etag) <= set("0123456789abcdef")


def _parts(path: Path, part_size: int, whole: "hashlib._Hash | None") -> Iterator[Part]:
    """Yield the parts of a file, and update ``whole`` with all of it."""
    with path.open("rb") as content:
        offset = 0
        while True:
            md5, sha256, size = hashlib.md5(), hashlib.sha256(), 0
            while size < part_size and (block := content.read(min(MIB, part_size - size))):
                md5.update(block)
                sha256.update(block)
                if whole is not None:
                    whole.update(block)
                size += len(block)
            if size or offset == 0:
                yield Part(offset, size, md5.digest(), sha256.digest())
            offset += size
            if size < part_size:
                return
