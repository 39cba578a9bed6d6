"""Git commit of the running project, recorded with everything that it writes."""

import os
import subprocess
from functools import cache
from pathlib import Path

FILE_NAME = "COMMIT"
_PACKAGE = Path(__file__).resolve().parent
_PROJECT = 'name = "positronic-lightning"'
# Prefix of git's line with the commit, and its value before the first commit.
_NAMED, _NONE_YET = "# branch.oid ", "(initial)"
# A git hook that runs this program sets them, to the hook's repository.
_ANOTHER = ("GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY")
# It takes a few milliseconds on a local disk; do not wait for a hanging file server.
_PATIENCE_S = 2.0


@cache
def commit() -> str | None:
    """Return this process's commit: 40 hex digits, and ``-dirty`` if files differ from it.

    In an image it is read from the file ``COMMIT`` in the package, written by the image's build; in
    a checkout it comes from git, ignoring untracked files. None if neither is available. Cached,
    since imported code does not change with a later checkout.
    """
    return _written() or _checked_out()


def _written() -> str | None:
    try:
        return (_PACKAGE / FILE_NAME).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _checked_out() -> str | None:
    """Return the commit of the package's own checkout, never of a repository around it."""
    root = _PACKAGE.parents[1]
    try:
        described = (root / "pyproject.toml").read_text(encoding="utf-8")
        if _PROJECT not in described or not (root / ".git").exists():
            return None
        # Status, not describe, which takes the index lock and may block other git commands.
        words = "--no-optional-locks status --porcelain=v2 --branch --untracked-files=no"
        said = subprocess.run(
            ["git", *words.split(), "--no-ahead-behind", "--no-renames"],
            cwd=root,
            env={name: value for name, value in os.environ.items() if name not in _ANOTHER}
            | {"GIT_CEILING_DIRECTORIES": str(root.parent)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE_S,
            text=True,
            check=True,
        ).stdout.splitlines()
    except (OSError, UnicodeDecodeError, subprocess.SubprocessError):
        return None
    name = next((line[len(_NAMED) :] for line in said if line.startswith(_NAMED)), _NONE_YET)
    if name == _NONE_YET:
        return None
    changed = any(not line.startswith("#") for line in said)
    return f"{name}-dirty" if changed else name
