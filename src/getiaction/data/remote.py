"""Datasets in S3, mirrored into a local directory before they are read.

LeRobot reads files, and reads them many times. A mirror is kept between runs; only what has changed
since is fetched. Credentials and endpoint come from the usual ``AWS_...`` variables.
"""

import fcntl
import hashlib
import json
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from getiaction.errors import GetiactionError

SCHEME = "s3://"
INDEX = ".mirror.jsonl"
UNFINISHED = ".unfinished-"
PARALLEL = 8
ATTEMPTS = 4
FIRST_PAUSE_S = 0.5


@dataclass(frozen=True)
class RemoteFile:
    """One object: its path below the root, its size in bytes and S3's tag of its content."""

    name: str
    size: int
    etag: str

    @property
    def md5(self) -> str | None:
        """The content's MD5; None where the tag is something else, as after a multipart upload."""
        tag = self.etag.strip('"').lower()
        return tag if len(tag) == 32 and set(tag) <= set("0123456789abcdef") else None


def mirror(url: str, *, required: str | None = None) -> Path:
    """Return a local directory with the content of ``url``, fetching what has changed.

    A file appears in the mirror only when it is whole: of the listed size and, where S3's tag is an
    MD5, with that digest. Processes that mirror the same URL take turns.

    Args:
        url: ``s3://bucket/prefix``.
        required: A path below it; without this object nothing is fetched.

    Raises:
        GetiactionError: there is nothing there, it may not or cannot be read, or the package for
            S3 is not installed.
    """
    url = SCHEME + url.removeprefix(SCHEME).rstrip("/")
    filesystem = _filesystem()
    directory = mirror_directory(url)
    with _locked(directory):
        files = _listed(filesystem, url)
        if required is not None and required not in files:
            raise GetiactionError(
                f"{url} is not a LeRobot dataset: it has no {required}; expected what a "
                "conversion wrote"
            )
        directory.mkdir(exist_ok=True)
        index = _Index(directory)
        _remove_others(directory, files)
        wanted = [
            file
            for file in files.values()
            if index.entries.get(file.name) != file or not _has_size(directory / file.name, file)
        ]
        if wanted:
            _fetch(filesystem, url, wanted, directory, index)
    return directory


def mirror_directory(url: str) -> Path:
    """Where ``url`` is mirrored: below ``$XDG_CACHE_HOME``, which is ``~/.cache`` unless set."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    # The same bucket's name means another bucket at another endpoint.
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    digest = hashlib.sha256(f"{endpoint} {url.rstrip('/')}".encode()).hexdigest()[:32]
    return home / "getiaction" / "datasets" / digest


class _Index:
    """What the mirror holds, a line a file, appended as files arrive; the last one counts."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / INDEX
        self.entries: dict[str, RemoteFile] = {}
        for line in self.path.read_text().splitlines() if self.path.is_file() else []:
            try:
                file = RemoteFile(**json.loads(line))
            except (ValueError, TypeError):
                continue  # the line at which a killed process stopped
            self.entries[file.name] = file

    def add(self, file: RemoteFile) -> None:
        self.entries[file.name] = file
        with self.path.open("a") as lines:
            lines.write(f"\n{json.dumps(vars(file))}\n")


def _filesystem() -> Any:
    try:
        import s3fs
    except ImportError as error:
        raise GetiactionError(
            "datasets in S3 need the package s3fs; pip install 'positronic-lightning[s3]'"
        ) from error
    # A listing that is remembered would hide what has changed.
    return s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)


def _listed(filesystem: Any, url: str) -> dict[str, RemoteFile]:
    prefix = url.removeprefix(SCHEME)
    if not prefix.partition("/")[0]:
        raise GetiactionError(f"{url} names no bucket; expected {SCHEME}bucket/prefix")
    found: dict[str, Any] = _patiently(
        lambda: filesystem.find(prefix, detail=True), f"{url} cannot be listed"
    )
    files: dict[str, RemoteFile] = {}
    for path, details in found.items():
        name = str(path).removeprefix(f"{prefix}/")
        if name == path or name.endswith("/"):
            continue  # the prefix itself is an object, or a directory was marked by one
        if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():
            raise GetiactionError(f"{url} has an object {name!r}, which is no path below it")
        files[name] = RemoteFile(name, int(details["size"]), str(details["ETag"]))
    if not files:
        raise GetiactionError(f"there is no dataset at {url}: no objects have that prefix")
    return files


def _fetch(
    filesystem: Any, url: str, files: list[RemoteFile], directory: Path, index: _Index
) -> None:
    total = sum(file.size for file in files)
    interactive = sys.stderr.isatty()
    if not interactive:
        _say(f"fetching {len(files)} files, {total / 2**20:.1f} MiB, from {url}")
    with (
        tqdm(
            total=total,
            desc=f"fetching {url}",
            unit="B",
            unit_scale=True,
            disable=not interactive,
        ) as progress,
        ThreadPoolExecutor(PARALLEL) as pool,
    ):
        one_at_a_time = threading.Lock()

        def fetch(file: RemoteFile) -> None:
            with one_at_a_time:
                # Until the new content is there, the entry must not vouch for the old one.
                index.add(replace(file, etag=""))
            _fetch_one(filesystem, url, file, directory)
            with one_at_a_time:
                index.add(file)
                progress.update(file.size)

        parts = [pool.submit(fetch, file) for file in files]
        try:
            for part in as_completed(parts):
                part.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if not interactive:
        _say(f"fetched {url} into {directory}")


def _fetch_one(filesystem: Any, url: str, file: RemoteFile, directory: Path) -> None:
    final = directory / file.name
    final.parent.mkdir(parents=True, exist_ok=True)
    unfinished = final.with_name(f"{UNFINISHED}{final.name}")
    remote = f"{url.removeprefix(SCHEME)}/{file.name}"

    def attempt() -> None:
        filesystem.get_file(remote, str(unfinished))
        _verify(filesystem, remote, file, unfinished)

    _patiently(attempt, f"{SCHEME}{remote} cannot be fetched")
    os.replace(unfinished, final)


def _verify(filesystem: Any, remote: str, file: RemoteFile, path: Path) -> None:
    size = path.stat().st_size
    if size != file.size:
        raise OSError(f"it gave {size} bytes instead of {file.size}")
    if file.md5 is None:
        return
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "md5").hexdigest()
    if digest != file.md5 and not _is_encrypted_by_key(filesystem, remote):
        raise OSError("what arrived does not have the digest that S3 names")


def _is_encrypted_by_key(filesystem: Any, remote: str) -> bool:
    """Whether the object's tag looks like an MD5 but is none, as with keys from KMS."""
    bucket, _, key = remote.partition("/")
    head = filesystem.call_s3("head_object", Bucket=bucket, Key=key)
    return "kms" in head.get("ServerSideEncryption", "") or "SSECustomerAlgorithm" in head


def _patiently(action: Any, failed: str) -> Any:
    """Do ``action``, again after a pause if the connection failed; say in a line what is wrong."""
    from botocore.exceptions import (
        BotoCoreError,
        NoCredentialsError,
    )

    for attempt in range(1, ATTEMPTS + 1):
        try:
            return action()
        except NoCredentialsError as error:
            raise GetiactionError(
                f"{failed}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from error
        except FileNotFoundError as error:
            raise GetiactionError(f"{failed}: it does not exist") from error
        except PermissionError as error:
            raise GetiactionError(f"{failed}: {_first_line(error)}") from error
        except (OSError, BotoCoreError) as error:
            if attempt == ATTEMPTS:
                raise GetiactionError(
                    f"{failed}, tried {ATTEMPTS} times: {_first_line(error)}"
                ) from error
            time.sleep(FIRST_PAUSE_S * 2 ** (attempt - 1) * (1 + random.random()))
    raise AssertionError("unreachable")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _has_size(path: Path, file: RemoteFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size


def _remove_others(directory: Path, files: dict[str, RemoteFile]) -> None:
    """Delete what is not in S3 any more, and what killed processes left unfinished."""
    for path in directory.rglob("*"):
        name = path.relative_to(directory).as_posix()
        if path.is_file() and name not in files and name != INDEX:
            path.unlink()


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    directory.parent.mkdir(parents=True, exist_ok=True)
    with directory.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
