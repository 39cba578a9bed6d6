"""Repositories on the Hugging Face Hub: ``hf://USER/NAME`` and ``hf://datasets/USER/NAME``.

Read through huggingface_hub, into its cache and with its credentials; imported when first used.
"""

import dataclasses
import glob
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import Forbidden, NotFound, StorageError
from foundation.text import printable

if TYPE_CHECKING:
    from huggingface_hub import HfUri

SCHEME = "hf://"
DATASET = "dataset"
EXPECTED = f"expected {SCHEME}USER/NAME for a policy, {SCHEME}datasets/USER/NAME for a dataset"
TOKEN = "set HF_TOKEN to a token that has access (`hf auth login` keeps one)"


def is_hub(path: str | Path) -> bool:
    """Return whether a path is on the Hub."""
    # Path("hf://user") drops one of the slashes.
    return str(path).startswith("hf:/")


def parse(path: str | Path) -> "HfUri":
    """Parse an address of a policy or a dataset, ``@REVISION`` and a path in it allowed.

    Raises:
        StorageError: it is not one.
    """
    from huggingface_hub import parse_hf_uri

    text = SCHEME + str(path).removeprefix("hf:").lstrip("/")
    try:
        uri = parse_hf_uri(text.rstrip("/"))
    except ValueError as error:
        raise StorageError(f"{printable(text)} is not an address on the Hub; {EXPECTED}") from error
    if uri.type not in ("model", DATASET) or ".." in uri.path_in_repo.split("/"):
        raise StorageError(f"{printable(text)} is not a place to read from; {EXPECTED}")
    return uri


def address(uri: "HfUri") -> str:
    """Return the address as it is written."""
    return uri.to_uri().replace(f"{SCHEME}models/", SCHEME, 1)


def join(path: str | Path, *parts: str) -> str:
    """Return the address of something below ``path``."""
    uri = parse(path)
    inner = "/".join(part.strip("/") for part in (uri.path_in_repo, *parts) if part.strip("/"))
    return address(parse(address(dataclasses.replace(uri, path_in_repo=inner))))


def pinned(path: str | Path, prefer: str | None = None) -> "HfUri":
    """Return the address at the commit that its revision is now.

    Without network, the commit that was fetched last.

    Args:
        path: The address.
        prefer: A tag to take, if there is one, where the address names no revision.

    Raises:
        NotFound: there is no such repository, or no such revision.
        Forbidden: the token has no access.
        StorageError: the Hub cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionNotFoundError, RevisionResolutionError

    uri = parse(path)
    asked = [uri.revision] if uri.revision or prefer is None else [prefer, None]
    with explained(uri):
        for revision in asked:
            try:
                commit = HfApi().resolve_revision(uri.id, repo_type=uri.type, revision=revision)
                return dataclasses.replace(uri, revision=commit.resolved)
            except (RevisionNotFoundError, RevisionResolutionError):
                if revision == asked[-1]:
                    raise
    raise AssertionError("unreachable")


def files(path: str | Path) -> Mapping[str, int]:
    """Return the sizes of the files at an address, by name below it.

    Raises:
        StorageError: as :func:`pinned`.
    """
    return _sizes(pinned(path))


def exists(path: str | Path) -> bool:
    """Return whether a file or a directory is there, in a repository that is.

    Raises:
        StorageError: as :func:`pinned`.
    """
    uri = pinned(path)
    whole = _sizes(dataclasses.replace(uri, path_in_repo=""))
    return uri.path_in_repo in (*whole, "") or bool(_sizes(uri))


def fetch(
    path: str | Path, *, only: Callable[[str], bool] | None = None, required: str | None = None
) -> Path:
    """Return a local directory with the files at an address, all of one commit.

    Args:
        path: The address of a directory.
        only: Predicate of the relative names to fetch; others may be there as well. None for all.
        required: A relative name that must exist.

    Raises:
        StorageError: as :func:`pinned`; nothing is there, or not ``required``.
    """
    uri = pinned(path)
    sizes = _sizes(uri)
    if not sizes:
        raise NotFound(f"there is nothing at {address(uri)}")
    if required is not None and required not in sizes:
        raise NotFound(f"{address(uri)} has no {required}")
    prefix = f"{uri.path_in_repo}/" if uri.path_in_repo else ""
    patterns = [f"{glob.escape(prefix)}*"]
    if only is not None:
        patterns = [glob.escape(prefix + name) for name in sizes if only(name)]
    with explained(uri):
        return _download(uri, patterns) / uri.path_in_repo


def fetch_file(path: str | Path) -> Path:
    """Return a local copy of one file.

    Raises:
        StorageError: there is none, or it cannot be fetched.
    """
    folder, _, name = address(parse(path)).rpartition("/")
    if not parse(path).path_in_repo:
        raise StorageError(f"{path} is a repository; expected a file in one")
    return fetch(folder, only=lambda found: found == name, required=name) / name


def _sizes(uri: "HfUri") -> Mapping[str, int]:
    with explained(uri):
        sizes = _tree(uri)
    prefix = f"{uri.path_in_repo}/" if uri.path_in_repo else ""
    return {
        name.removeprefix(prefix): size for name, size in sizes.items() if name.startswith(prefix)
    }


def _tree(uri: "HfUri") -> Mapping[str, int]:
    """Return the sizes of all files of a commit, as the cache has them if it does."""
    from huggingface_hub import constants, get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    for _ in range(2):
        try:
            tree = get_cached_repo_tree(uri.id, repo_type=uri.type, revision=uri.revision)
            return {file.path: file.size for file in tree}
        except CachedRepoTreeNotFoundError:
            # Fetches no file, but keeps the list of them.
            root = _download(uri, [])
            if constants.HF_HUB_OFFLINE:
                break
    found = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.stat().st_size for path in found}


def _download(uri: "HfUri", patterns: list[str]) -> Path:
    from huggingface_hub import constants, snapshot_download

    root = snapshot_download(
        uri.id,
        repo_type=uri.type,
        revision=uri.revision,
        allow_patterns=patterns,
        local_files_only=constants.HF_HUB_OFFLINE,
    )
    return Path(root)


@contextmanager
def explained(uri: "HfUri", doing: str = "fetched from") -> Iterator[None]:
    """Context in which errors of huggingface_hub become one line.

    Args:
        uri: The repository.
        doing: Said of it in messages.
    """
    from httpx import HTTPError
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
        RevisionResolutionError,
    )
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if constants.HF_HUB_DISABLE_PROGRESS_BARS is None and not sys.stderr.isatty():
        disable_progress_bars()
    place, hub = address(uri), constants.ENDPOINT
    try:
        yield
    except RevisionNotFoundError as error:
        raise NotFound(
            f"{address(dataclasses.replace(uri, revision=None))} has no revision"
            f" {uri.revision or constants.DEFAULT_REVISION!r}; give a branch, tag or commit that"
            " is there"
        ) from error
    except GatedRepoError as error:
        raise Forbidden(
            f"{place} is gated: ask for access on its page at {hub}, and {TOKEN}"
        ) from error
    except RepositoryNotFoundError as error:
        raise NotFound(
            f"there is no {uri.type} {uri.id} at {hub}, or it is private; check the name, or"
            f" {TOKEN}"
        ) from error
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            raise Forbidden(f"no access to {place} at {hub}: {line(error)}; {TOKEN}") from error
        raise StorageError(f"{place}: the Hub at {hub} failed: {line(error)}") from error
    except (HTTPError, RevisionResolutionError, OSError) as error:
        why = line(error)
        if constants.HF_HUB_OFFLINE:
            why = f"HF_HUB_OFFLINE forbids it, and it is not in {constants.HF_HUB_CACHE}"
        raise StorageError(f"{place} cannot be {doing} {hub}: {why}") from error


def line(error: BaseException) -> str:
    """Return what the first cause of an error says, on one line."""
    while error.__cause__ is not None and not hasattr(error, "server_message"):
        error = error.__cause__
    said = getattr(error, "server_message", None) or error
    return printable(said, 300).rstrip(".") or type(error).__name__
