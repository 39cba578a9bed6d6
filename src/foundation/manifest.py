"""Directory manifest: size and SHA-256 of every file, to verify that a directory is complete.

The directory is made under a name that readers ignore, gets its manifest last, and is then renamed.
A later reader, on any machine, can verify that nothing is missing or has changed.
"""

import json
import shutil
import stat
from pathlib import Path
from typing import Annotated, Any, TypedDict

from pydantic import Field

from foundation.documents import Document, InvalidDocument, Reader, RelativeName, inside
from foundation.files import sha256_of, sync

MANIFEST = "manifest.json"
UNFINISHED = ".unfinished-"


class _Entry(TypedDict):
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Sealed(Document):
    files: dict[RelativeName, _Entry]


_READER = Reader(mend="restore it from a copy, or use another one")


def seal(directory: Path) -> None:
    """Write the manifest of ``directory``, and flush everything in it to the disk."""
    files = {name: _entry(path) for name, path in _files(directory).items()}
    document = json.dumps({"files": files}, indent=2) + "\n"
    (directory / MANIFEST).write_text(document, encoding="utf-8")
    for path in [*directory.rglob("*"), directory]:
        sync(path)


def faults(directory: Path) -> list[str]:
    """Return what is wrong with ``directory``, one line per file; empty if it is complete.

    Files that the manifest does not name are ignored.
    """
    try:
        content = _READER.read(directory / MANIFEST)
        wanted = _READER.parse_json(content, _Sealed, MANIFEST).files
    except FileNotFoundError:
        return [f"it has no {MANIFEST}"]
    except OSError as error:
        return [f"its {MANIFEST} is not readable ({error.strerror})"]
    except InvalidDocument as error:
        return [f"its {MANIFEST} is not readable: {error}"]
    return [
        fault
        for name, entry in sorted(wanted.items())
        if (fault := _fault(directory, name, entry["size"], entry["sha256"]))
    ]


def remove_unfinished(parent: Path) -> None:
    """Delete unfinished directories that killed processes left in ``parent``."""
    for path in parent.glob(f"{UNFINISHED}*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _fault(directory: Path, name: str, size: int, digest: str) -> str | None:
    try:
        path = inside(directory, name)
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            return f"{name} is not a regular file"
        if found.st_size != size:
            return f"{name} has {found.st_size} bytes instead of {size}"
        if sha256_of(path) != digest:
            return f"{name} does not have the digest that it was saved with"
    except FileNotFoundError:
        return f"{name} is missing"
    except InvalidDocument as error:
        return str(error)
    except OSError as error:
        return f"{name} is not readable ({error.strerror})"
    return None


def _files(directory: Path) -> dict[str, Path]:
    paths = (path for path in sorted(directory.rglob("*")) if path.is_file())
    named = {path.relative_to(directory).as_posix(): path for path in paths}
    named.pop(MANIFEST, None)
    return named


def _entry(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": sha256_of(path)}
