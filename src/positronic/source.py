"""Git commit of the running project, written down with all that it makes."""

import os
import subprocess
from functools import cache
from pathlib import Path

FILE_NAME = "COMMIT"
_PACKAGE = Path(__file__).resolve().parent
_PROJECT = 'name = "positronic-lightning"'
# How git's answer begins where it names the commit, and what it calls none.
_NAMED, _NONE_YET = "# branch.oid ", "(initial)"
# A hook of git's that runs us has them set, to the repository that it is about.
_ANOTHER = ("GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY")
# On one machine it is a few milliseconds; a file server that hangs is not waited for.
_PATIENCE_S = 2.0


@cache
def commit() -> str | None:
    """The commit this process began with: 40 hex digits, and ``-dirty`` if files differ from it.

    An image is told by the file ``COMMIT`` in the package, which its build writes there; a checkout
    is asked by git, its untracked files left aside. None where neither knows. Asked once per
    process, as what is imported does not change with a later checkout.
    """
    return _written() or _checked_out()


def _written() -> str | None:
    try:
        return (_PACKAGE / FILE_NAME).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _checked_out() -> str | None:
    """What git says of the checkout the package lies in; never of one around that."""
    root = _PACKAGE.parents[1]
    try:
        described = (root / "pyproject.toml").read_text(encoding="utf-8")
        if _PROJECT not in described or not (root / ".git").exists():
            return None
        # Status, not describe, which takes the lock of the index and may be in somebody's way.
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
