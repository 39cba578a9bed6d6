"""Durable writes, renames and swaps of files and directories, which survive a power cut."""

import ctypes
import errno
import os
import shutil
import stat
from pathlib import Path

from foundation.files import replace_text, sync

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def write_text(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all."""
    replace_text(path, text)


def sync_tree(directory: Path) -> None:
    """Wait until every file and directory below ``directory`` is on the disk."""
    for folder, _, files in os.walk(directory):
        for file in files:
            sync(Path(folder, file))
        sync(Path(folder))


def link_tree(source: Path, target: Path) -> None:
    """Make ``target`` a copy of a dataset whose files are links to those of ``source``.

    Those directly in ``meta`` are copied, since they are rewritten where they are.
    """
    shutil.copytree(source, target, copy_function=_link)
    # A dataset may be read-only; what is prepared in its stead is written to, and removed.
    for folder, _, _ in os.walk(target):
        os.chmod(folder, os.stat(folder).st_mode | stat.S_IRWXU)


def _link(source: str, target: str) -> None:
    # A link to a symbolic link leads elsewhere: it is relative to where it lies.
    if Path(source).parent.name != "meta" and not os.path.islink(source):
        try:
            os.link(source, target)
            return
        except OSError:
            pass  # another file system, or one without links
    shutil.copyfile(source, target)


def rename(source: Path, target: Path) -> None:
    """Rename a directory and wait until its new name is on the disk."""
    source.rename(target)
    sync(target.parent)
    if source.parent != target.parent:
        sync(source.parent)


def exchange(one: Path, other: Path) -> bool:
    """Swap two directories in a single step; False, and nothing done, where that cannot be."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    names = os.fsencode(one), os.fsencode(other)
    if renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) != 0:
        code = ctypes.get_errno()
        if code in (errno.EINVAL, errno.ENOSYS):
            return False
        raise OSError(code, os.strerror(code), str(one), None, str(other))
    sync(one.parent)
    sync(other.parent)
    return True
