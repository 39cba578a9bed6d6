"""Check that a directory is writable before long work; explain in one line why it is not."""

import errno
import os
import pwd
import stat
from pathlib import Path

# Environment variables of folders that no flag names, and their defaults.
KEPT_BY_ITSELF = {"XDG_CACHE_HOME": "~/.cache", "XDG_DATA_HOME": "~/.local/share"}


def require_writable(directory: str | Path) -> None:
    """Raise unless a directory can be written to, or could be made.

    Nothing is made: the nearest existing directory is checked.

    Raises:
        OSError: with ``EROFS`` or ``EACCES``, and the directory; with ``ENOTDIR``, and the file.
    """
    there = _nearest(directory)
    if not there.is_dir():
        raise OSError(errno.ENOTDIR, "a file is in the way; give another directory", str(there))
    if not os.access(there, os.W_OK | os.X_OK):
        read_only = os.statvfs(there).f_flag & os.ST_RDONLY
        code = errno.EROFS if read_only else errno.EACCES
        raise OSError(code, os.strerror(code), str(directory))


def describe(error: OSError) -> str:
    """Return an error in one line, and what to do if a path cannot be written to.

    Containers of this project have a read-only root file system, so that writing files that would
    be lost fails at once.
    """
    if not isinstance(error.filename, str | bytes):
        return error.strerror or str(error)
    path = Path(os.fsdecode(error.filename))
    if not path.is_absolute() and not os.path.lexists(path):
        # Some errors name a path relative to a directory that they do not name.
        return f"{path}: {error.strerror or error}"
    path = path.absolute()
    if error.errno not in (errno.EROFS, errno.EACCES):
        return f"{os.fsdecode(error.filename)}: {error.strerror or error}"
    if error.errno == errno.EACCES:
        return (
            f"{path}: permission denied; {_whose(path)}; {_instead(path)}, or have its owner change"
            " that with chown or chmod"
        )
    return (
        f"{path} is on a read-only file system; {_instead(path)}. In a container only mounted "
        "folders can be written to and outlive it, such as ~/datasets and ~/checkpoints; others "
        f"are mounted with -v {_mount(path)}"
    )


def _nearest(path: str | Path) -> Path:
    """Return the path, or the nearest existing directory above it."""
    there = Path(path).absolute()
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    return there


def _whose(path: Path) -> str:
    there = _nearest(path)
    try:
        found = there.stat()
    except OSError:
        return f"this program runs as {_name(os.geteuid())}"
    what = "it" if there == path else str(there)
    owner, mode = _name(found.st_uid), stat.filemode(found.st_mode)
    return f"{what} belongs to {owner} ({mode}), and this program runs as {_name(os.geteuid())}"


def _name(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:  # as in a container that runs with a uid of its host
        return f"uid {uid}"


def _instead(path: Path) -> str:
    for variable, folder in KEPT_BY_ITSELF.items():
        kept = Path(os.environ.get(variable) or os.path.expanduser(folder)).absolute()
        # If all of it is missing, the topmost part could not be made.
        if path.is_relative_to(kept) or kept.is_relative_to(path):
            return f"let {variable} name another folder"
    return "choose another folder"


def _mount(path: Path) -> str:
    """Return the folder to mount, as Docker's ``HOST:CONTAINER``."""
    home = Path(os.path.expanduser("~"))
    folder = path
    while folder.parent != folder and not os.path.lexists(folder.parent):
        folder = folder.parent
    # The last part may be a file's name.
    if folder == path and not path.is_dir() and path.parent not in (Path("/"), home):
        folder = path.parent
    if folder.is_relative_to(home) and home != Path("/"):
        return f"~/{folder.relative_to(home)}:{folder}"
    return f"{folder}:{folder}"
