"""Addresses in S3: ``s3://bucket/key``, or ``s3://PROFILE@bucket/key``."""

from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Self

from getiaction.errors import GetiactionError

SCHEME = "s3://"


@dataclass(frozen=True)
class Location:
    """An object or a prefix.

    Attributes:
        profile: The named profile that says where the bucket is; None for the environment's.
        bucket: The bucket's name.
        key: The object's key, or a prefix of keys; no slash at its ends. Empty for all of a bucket.
    """

    profile: str | None
    bucket: str
    key: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read an address.

        Raises:
            GetiactionError: it is none.
        """
        if not url.startswith(SCHEME):
            raise GetiactionError(f"{url} is no address in S3; expected {SCHEME}bucket/key")
        host, _, key = url.removeprefix(SCHEME).partition("/")
        profile, at, bucket = host.rpartition("@")
        if not bucket or (at and not profile):
            raise GetiactionError(f"{url} names no bucket; expected {SCHEME}bucket/key")
        key = key.strip("/")
        if leads_elsewhere(key):
            raise GetiactionError(f"{url} is no plain address: '..' or '//' in a key means nothing")
        return cls(profile or None, bucket, key)

    def __truediv__(self, name: str) -> Self:
        return replace(self, key=f"{self.key}/{name}".strip("/"))

    def __str__(self) -> str:
        host = f"{self.profile}@{self.bucket}" if self.profile else self.bucket
        return f"{SCHEME}{host}/{self.key}".rstrip("/")

    @property
    def prefix(self) -> str:
        """What the keys of everything below begin with."""
        return f"{self.key}/" if self.key else ""


def leads_elsewhere(name: str) -> bool:
    """Whether a name, taken as a relative path, would leave its directory or mean another name."""
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts or (name != "" and str(path) != name)
