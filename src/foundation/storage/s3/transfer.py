"""Upload and download of S3 objects: verified by digest, resumed where the connection was cut."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

from foundation.errors import NotFound, PreconditionFailed
from foundation.files import open_to_append, sha256_of
from foundation.storage.s3.client import PARALLEL, client
from foundation.storage.s3.digests import Digest, Part, etag_of, is_md5
from foundation.storage.s3.location import Location
from foundation.storage.s3.objects import (
    SHA256,
    Stored,
    address,
    confirm,
    has_own_key,
    head,
    holds,
    read_head,
    tag,
)
from foundation.storage.s3.retry import ChecksumMismatch, patiently

# A block that is not read in full when the connection is cut is lost.
BLOCK = 128 * 2**10


def in_parallel[T](action: Callable[[T], Any], items: Iterable[T]) -> None:
    """Call ``action`` on every item, ``PARALLEL`` at a time.

    Raises:
        Exception: the first that any of them raised; calls not yet started are cancelled.
    """
    with ThreadPoolExecutor(PARALLEL) as pool:
        parts = [pool.submit(action, item) for item in items]
        try:
            for part in as_completed(parts):
                part.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def send(
    path: Path,
    wanted: Digest,
    location: Location,
    *,
    if_absent: bool,
    advance: Callable[[int], Any],
) -> None:
    """Upload a file, verified by digest, in parts if it is large.

    Args:
        path: The file.
        wanted: Its digests.
        location: Where to.
        if_absent: Whether to refuse to overwrite an existing object.
        advance: Called with the number of bytes whenever some have been sent.

    Raises:
        PreconditionFailed: ``if_absent``, and an object with other content is there.
        StorageError: it cannot be written.
    """
    condition = {"IfNoneMatch": "*"} if if_absent else {}
    try:
        _upload(path, wanted, location, condition, advance)
    except PreconditionFailed:
        there = head(location)
        if there is None or there.sha256 != wanted.sha256:
            raise
        if not holds(location, wanted):  # it was sent, and arrived damaged
            _upload(path, wanted, location, {"IfMatch": f'"{there.etag}"'}, advance)


def receive(location: Location, stored: Stored, path: Path, advance: Callable[[int], Any]) -> None:
    """Download an object, resuming an earlier attempt; on return the file is complete.

    Raises:
        PreconditionFailed: the object does not have the expected digest (any more).
        NotFound: nothing lies there.
        StorageError: it cannot be read.
    """
    told = _size(path)
    advance(told)

    def attempt() -> None:
        nonlocal told
        begin = _size(path)
        if begin < stored.size or not path.is_file():
            with open_to_append(path) as file:
                for block in _blocks(location, stored, begin):
                    file.write(block)
                    advance(max(0, file.tell() - told))
                    told = max(told, file.tell())
        if _size(path) < stored.size:
            raise ChecksumMismatch(f"it gave {_size(path)} bytes instead of {stored.size}")
        if not _same(location, stored, path):
            other = _is_what_lies_there(location, path)
            path.unlink()
            if other and stored.sha256 is not None:
                raise PreconditionFailed(_replaced(location))
            raise ChecksumMismatch("what arrived does not have the digest that was expected")

    patiently(attempt, f"{location} cannot be fetched", lambda: told)


def is_known(stored: Stored, path: Path) -> bool:
    """Return whether a file has the content of an object, as far as known without asking S3."""
    if _size(path) != stored.size:
        return False
    if stored.sha256 is not None:
        return sha256_of(path) == stored.sha256
    return is_md5(stored.etag) and etag_of(path, None) == stored.etag


def _upload(
    path: Path,
    wanted: Digest,
    location: Location,
    condition: dict[str, str],
    advance: Callable[[int], Any],
) -> None:
    metadata = {"Metadata": {SHA256: wanted.sha256}}
    if len(wanted.parts) == 1:
        _put(path, wanted.parts[0], location, condition, metadata)
        advance(wanted.size)
    else:
        _put_parts(path, wanted, location, condition, metadata, advance)


def _put(
    path: Path, part: Part, location: Location, condition: dict[str, str], options: dict[str, Any]
) -> None:
    def attempt() -> None:
        nonlocal condition
        with path.open("rb") as body:
            answer = client(location.profile).put_object(
                **address(location), **condition, **options, Body=body, **part.headers
            )
        if condition:  # should it be wrong, then this is what may be replaced
            condition = {"IfMatch": f'"{tag(answer)}"'}
        confirm(answer, part)

    patiently(attempt, f"{location} cannot be written")


def _put_parts(
    path: Path,
    wanted: Digest,
    location: Location,
    condition: dict[str, str],
    metadata: dict[str, Any],
    advance: Callable[[int], Any],
) -> None:
    s3 = client(location.profile)
    failed = f"{location} cannot be written"
    started = patiently(
        lambda: s3.create_multipart_upload(
            **address(location), **metadata, ChecksumAlgorithm="SHA256"
        ),
        failed,
    )
    upload = {**address(location), "UploadId": started["UploadId"]}
    try:
        parts = []
        for number, part in enumerate(wanted.parts, 1):
            etag = _put_part(path, part, number, upload, s3, failed)
            parts.append({"PartNumber": number, "ETag": etag, "ChecksumSHA256": part.checksum})
            advance(part.size)
        patiently(
            lambda: s3.complete_multipart_upload(
                **upload, **condition, MultipartUpload={"Parts": parts}
            ),
            failed,
        )
    except NotFound:
        # The response to an earlier attempt to complete it may have been lost.
        if not holds(location, wanted):
            raise
    except BaseException:
        with contextlib.suppress(Exception):
            s3.abort_multipart_upload(**upload)
        raise


def _put_part(
    path: Path, part: Part, number: int, upload: dict[str, Any], s3: Any, failed: str
) -> str:
    def attempt() -> str:
        with path.open("rb") as file:
            file.seek(part.offset)
            body = file.read(part.size)
        answer = s3.upload_part(**upload, PartNumber=number, Body=body, **part.headers)
        confirm(answer, part)
        return str(answer["ETag"])

    return patiently(attempt, failed)


def _blocks(location: Location, stored: Stored, begin: int) -> Iterator[bytes]:
    where = {"Range": f"bytes={begin}-"} if begin else {}
    if stored.etag:
        where["IfMatch"] = f'"{stored.etag}"'
    answer = client(location.profile).get_object(**address(location), **where)
    if begin + int(answer["ContentLength"]) != stored.size:
        raise PreconditionFailed(_replaced(location))
    while block := answer["Body"].read(BLOCK):
        yield block


def _same(location: Location, stored: Stored, path: Path) -> bool:
    """Return whether a file has the known content of an object."""
    if _size(path) != stored.size:
        return False
    if stored.sha256 is not None:
        return sha256_of(path) == stored.sha256
    if is_md5(stored.etag):
        return etag_of(path, None) == stored.etag or has_own_key(read_head(location))
    return "-" not in stored.etag or _same_parts(location, stored, path)


def _is_what_lies_there(location: Location, path: Path) -> bool:
    """Return whether a file equals the object now in S3, even if other content was expected."""
    there = head(location)
    return there is not None and _same(location, replace(there, sha256=None), path)


def _replaced(location: Location) -> str:
    return f"{location} has other content than was expected: something has replaced it"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _same_parts(location: Location, stored: Stored, path: Path) -> bool:
    """Compare by a multipart ETag, if the parts have one size; otherwise return True."""
    size = int(read_head(location, PartNumber=1)["ContentLength"])
    count = int(stored.etag.rpartition("-")[2])
    if size <= 0 or -(-stored.size // size) != count or has_own_key(read_head(location)):
        return True
    return etag_of(path, size) == stored.etag
