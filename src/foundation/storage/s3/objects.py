"""S3 object operations: list, read, write, copy, remove. Every transfer is verified by digest."""

import contextlib
import hashlib
import os
from dataclasses import dataclass
from typing import Any

from foundation.errors import NotFound, PreconditionFailed, StorageError
from foundation.storage.s3.client import client
from foundation.storage.s3.digests import Digest, Part, is_md5
from foundation.storage.s3.location import Location, leads_elsewhere
from foundation.storage.s3.retry import ChecksumMismatch, patiently
from foundation.text import printable

# Metadata key of an object's SHA-256, so that nothing is sent twice.
SHA256 = "sha256"
REMOVED_AT_ONCE = 1000


@dataclass(frozen=True)
class Stored:
    """An object: its size in bytes, its ETag, and its SHA-256 if known."""

    size: int
    etag: str
    sha256: str | None = None


def list_objects(location: Location, *, at_most: int | None = None) -> dict[str, Stored]:
    """Return the objects below a prefix, by relative name, sorted.

    Raises:
        StorageError: it cannot be listed, or an object's key is not a path below the prefix.
    """

    def attempt() -> dict[str, Stored]:
        found: dict[str, Stored] = {}
        pages = client(location.profile).get_paginator("list_objects_v2")
        settings = {"MaxItems": at_most} if at_most else {}
        for page in pages.paginate(
            Bucket=location.bucket, Prefix=location.prefix, PaginationConfig=settings
        ):
            for item in page.get("Contents", []):
                name = item["Key"].removeprefix(location.prefix)
                if not name or name.endswith("/"):
                    continue  # a directory marked by an object
                _require_plain(name, location)
                found[name] = Stored(int(item["Size"]), tag(item))
        return found

    return patiently(attempt, f"{location} cannot be listed")


def list_children(location: Location) -> list[str]:
    """Return the names one level below a prefix, sorted: of objects and of further prefixes.

    Raises:
        StorageError: it cannot be listed, or one of them is not a valid file name.
    """

    def attempt() -> list[str]:
        names: set[str] = set()
        pages = client(location.profile).get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=location.bucket, Prefix=location.prefix, Delimiter="/"):
            keys = [item["Key"] for item in page.get("Contents", [])]
            keys += [item["Prefix"] for item in page.get("CommonPrefixes", [])]
            names |= {key.removeprefix(location.prefix).strip("/") for key in keys}
        for name in names:
            _require_plain(name, location)
        return sorted(names - {""})

    return patiently(attempt, f"{location} cannot be listed")


def _require_plain(name: str, location: Location) -> None:
    if leads_elsewhere(name):
        raise StorageError(
            f"{location} has an object '{printable(name)}', which is not a path below it; remove "
            "that object, or name another prefix"
        )


def head(location: Location) -> Stored | None:
    """Return one object's size and digests; None if it does not exist."""
    if not location.key:
        return None
    try:
        answer = read_head(location)
    except NotFound:
        return None
    sha256 = answer.get("Metadata", {}).get(SHA256)
    return Stored(int(answer["ContentLength"]), tag(answer), sha256)


def holds(location: Location, wanted: Digest) -> bool:
    """Return whether the object exists with exactly this content."""
    there = head(location)
    if there is None or there.size != wanted.size or there.sha256 != wanted.sha256:
        return False
    return not is_md5(there.etag) or len(wanted.parts) > 1 or there.etag == wanted.etag


def read(location: Location, *, at_most: int) -> tuple[bytes, str] | None:
    """Return content and ETag of an object of up to ``at_most`` bytes; None if there is none.

    Raises:
        StorageError: it is larger, or cannot be read.
    """

    def attempt() -> tuple[bytes, str]:
        answer = client(location.profile).get_object(**address(location))
        if int(answer["ContentLength"]) > at_most:
            answer["Body"].close()
            raise StorageError(
                f"{location} has {answer['ContentLength']} bytes; expected at most {at_most}"
            )
        content = answer["Body"].read()
        etag = tag(answer)
        if is_md5(etag) and not has_own_key(answer) and hashlib.md5(content).hexdigest() != etag:
            raise ChecksumMismatch("what arrived does not have the digest that S3 names")
        return bytes(content), etag

    try:
        return patiently(attempt, f"{location} cannot be read")
    except NotFound:
        return None


def write(
    location: Location, content: bytes, *, if_absent: bool = False, if_match: str | None = None
) -> str:
    """Write an object in one step, and return its ETag.

    Raises:
        PreconditionFailed: ``if_absent`` and it exists, or its ETag is not ``if_match``.
        StorageError: it cannot be written.
    """
    condition = {"IfNoneMatch": "*"} if if_absent else {}
    if if_match is not None:
        condition = {"IfMatch": f'"{if_match}"'}
    sha256 = hashlib.sha256(content)
    # Tells a writer whose response was lost whether the object is its own.
    author = os.urandom(8).hex()
    whole = Part(0, len(content), hashlib.md5(content).digest(), sha256.digest())

    def attempt() -> str:
        nonlocal condition
        answer = client(location.profile).put_object(
            **address(location),
            **condition,
            Body=content,
            **whole.headers,
            Metadata={SHA256: sha256.hexdigest(), "author": author},
        )
        if condition:  # if it arrived damaged, this version may be replaced
            condition = {"IfMatch": f'"{tag(answer)}"'}
        confirm(answer, whole)
        return tag(answer)

    try:
        return patiently(attempt, f"{location} cannot be written")
    except (PreconditionFailed, NotFound):
        with contextlib.suppress(NotFound):
            answer = read_head(location)
            if answer.get("Metadata", {}).get("author") == author:
                return tag(answer)
        raise


def copy(source: Location, target: Location, wanted: Stored) -> None:
    """Copy an object within S3, and verify the copy."""

    def attempt() -> None:
        client(target.profile).copy(
            {"Bucket": source.bucket, "Key": source.key},
            target.bucket,
            target.key,
            ExtraArgs={"Metadata": {SHA256: wanted.sha256 or ""}, "MetadataDirective": "REPLACE"},
        )
        there, original = head(target), head(source)
        if there is None or original is None or there.size != wanted.size:
            raise ChecksumMismatch("the copy is not whole")
        if is_md5(there.etag) and is_md5(original.etag) and there.etag != original.etag:
            raise ChecksumMismatch("the copy does not have the digest of its original")

    patiently(attempt, f"{target} cannot be written")


def remove(locations: list[Location]) -> None:
    """Remove exactly these objects, all in one bucket; missing ones are ignored."""
    for first in range(0, len(locations), REMOVED_AT_ONCE):
        batch = locations[first : first + REMOVED_AT_ONCE]
        keys = [{"Key": location.key} for location in batch]

        def attempt(batch: list[Location] = batch, keys: list[dict[str, str]] = keys) -> None:
            answer = client(batch[0].profile).delete_objects(
                Bucket=batch[0].bucket, Delete={"Objects": keys, "Quiet": True}
            )
            for error in answer.get("Errors", []):
                raise ChecksumMismatch(
                    f"{error.get('Key')}: {error.get('Message', error.get('Code'))}"
                )

        patiently(attempt, f"{batch[0]} cannot be removed")


def confirm(answer: dict[str, Any], part: Part) -> None:
    """Compare what S3 says it received with what was sent."""
    checksum, etag = answer.get("ChecksumSHA256"), tag(answer)
    same = True if checksum is None else checksum == part.checksum
    if is_md5(etag) and not has_own_key(answer):
        same = same and etag == part.md5.hex()
    if not same:
        raise ChecksumMismatch("what S3 received does not have the digest of what was sent")


def read_head(location: Location, **options: Any) -> dict[str, Any]:
    """Return S3's HEAD response for one object.

    Raises:
        NotFound: there is none.
    """
    answer: dict[str, Any] = patiently(
        lambda: client(location.profile).head_object(**address(location), **options),
        f"{location} cannot be read",
    )
    return answer


def has_own_key(answer: dict[str, Any]) -> bool:
    """Return whether an object's ETag looks like an MD5 but is not one, as with KMS keys."""
    return "kms" in answer.get("ServerSideEncryption", "") or "SSECustomerAlgorithm" in answer


def tag(answer: dict[str, Any]) -> str:
    """Return the ETag of a response, without its quotation marks; empty if it has none."""
    return str(answer.get("ETag", "")).strip('"').lower()


def address(location: Location) -> dict[str, str]:
    """Return an object's address as arguments of boto3's functions."""
    return {"Bucket": location.bucket, "Key": location.key}
