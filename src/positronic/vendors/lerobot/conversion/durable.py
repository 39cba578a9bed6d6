"""Durable writes, renames and exchanges of files and directories (fsync)."""

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
    """Write a file atomically."""
    replace_text(path, text)


def sync_tree(directory: Path) -> None:
    """Wait until every file and directory below ``directory`` is on the disk."""
    for folder, _, files in os.walk(directory):
        for file in files:
            sync(Path(folder, file))
        sync(Path(folder))


def link_tree(source: Path, target: Path) -> None:
    """Make ``target`` a copy of a dataset, with hard links to the files of ``source``.

    Files directly in ``meta`` are copied, since they are rewritten in place.
    """
    shutil.copytree(source, target, copy_function=_link)
    # The dataset may be read-only, but its copy must be writable and removable.
    for folder, _, _ in os.walk(target):
        os.chmod(folder, os.stat(folder).st_mode | stat.S_IRWXU)


def _link(source: str, target: str) -> None:
    # A relative symbolic link would resolve differently from the new directory.
    if Path(source).parent.name != "meta" and not os.path.islink(source):
        try:
            os.link(source, target)
            return
        except OSError:
            pass  # another file system, or one without links
    shutil.copyfile(source, target)


def rename(source: Path, target: Path) -> None:
    """Rename a directory and sync its parent."""
    source.rename(target)
    sync(target.parent)
    if source.parent != target.parent:
        sync(source.parent)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two directories atomically; False, with nothing done, if not supported."""
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
