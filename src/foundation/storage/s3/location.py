"""S3 addresses: ``s3://bucket/key``, or ``s3://PROFILE@bucket/key``."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Self

from foundation.documents import relative_name
from foundation.errors import StorageError
from foundation.text import printable

SCHEME = "s3://"
"""URL scheme of an address in S3."""


@dataclass(frozen=True)
class Location:
    """Address of an object or a prefix in S3.

    Attributes:
        profile: The named profile with the bucket's endpoint; None for the environment's.
        bucket: The bucket's name.
        key: The object's key, or a prefix of keys; no slash at its ends. Empty for all of a bucket.
    """

    profile: str | None
    bucket: str
    key: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Parse an address.

        Raises:
            StorageError: it is not one.
        """
        if not url.startswith(SCHEME):
            raise StorageError(f"{url} is not an address in S3; expected {SCHEME}bucket/key")
        host, _, key = url.removeprefix(SCHEME).partition("/")
        profile, at, bucket = host.rpartition("@")
        if not bucket or (at and not profile):
            raise StorageError(f"{url} names no bucket; expected {SCHEME}bucket/key")
        key = key.strip("/")
        if leads_elsewhere(key):
            raise StorageError(
                f"{printable(url)} is not a valid address: a key must be a path without '..', "
                "'//', backslashes and control characters"
            )
        return cls(profile or None, bucket, key)

    def __truediv__(self, name: str) -> Self:
        if leads_elsewhere(name.strip("/")):
            raise StorageError(
                f"{self} has no {printable(name)!r} below it; expected a plain path such as 'a/b'"
            )
        return replace(self, key=f"{self.key}/{name}".strip("/"))

    def __str__(self) -> str:
        host = f"{self.profile}@{self.bucket}" if self.profile else self.bucket
        return f"{SCHEME}{host}/{self.key}".rstrip("/")

    @property
    def prefix(self) -> str:
        """Common prefix of all keys below it."""
        return f"{self.key}/" if self.key else ""


def leads_elsewhere(name: str) -> bool:
    """Return whether a name, as a relative path, would leave its directory or be ambiguous."""
    try:
        return bool(name) and not relative_name(name)
    except ValueError:
        return True


def clash(names: Collection[str]) -> tuple[str, str] | None:
    """Return two names that no directory can hold both, such as ``a`` and ``a/b``; None if none."""
    files, folders = set(names), set[str]()
    for name in names:
        folder = name.rpartition("/")[0]
        while folder and folder not in folders:
            if folder in files:
                return folder, name
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    return None
