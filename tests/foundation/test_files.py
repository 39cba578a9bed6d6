import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from foundation.files import open_lock, open_to_append, replace_text


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "home" / "diary.txt"
    path.parent.mkdir()
    path.write_text("precious")
    return path


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    path = tmp_path / "shared"
    path.mkdir()
    return path


@pytest.mark.parametrize("opened", [open_lock, open_to_append])
def test_a_link_is_refused_in_one_line(
    opened: Callable[[Path], object], victim: Path, shared: Path
) -> None:
    for target in (victim, victim.with_name("absent")):
        link = shared / ".lock"
        link.symlink_to(target)
        with pytest.raises(OSError, match=r"symbolic link.*so remove it: '.*\.lock'") as refused:
            opened(link)
        assert refused.value.errno == errno.EINVAL
        link.unlink()
    assert [path.name for path in victim.parent.iterdir()] == ["diary.txt"]
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("opened", [open_lock, open_to_append])
def test_what_is_no_regular_file_is_refused_at_once(
    opened: Callable[[Path], object], shared: Path
) -> None:
    os.mkfifo(shared / "pipe")
    with pytest.raises(
        OSError, match="not a regular file; expected a file that this program keeps"
    ):
        opened(shared / "pipe")
    with pytest.raises(IsADirectoryError):
        opened(shared)


def test_a_lock_keeps_what_the_file_holds(shared: Path) -> None:
    path = shared / ".lock"
    with open_lock(path) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with open_lock(path) as second, pytest.raises(BlockingIOError):
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    path.write_text("kept")
    with open_lock(path, make=False):
        pass
    assert path.read_text() == "kept"
    with pytest.raises(FileNotFoundError):
        open_lock(shared / "absent", make=False)


def test_lines_are_appended(shared: Path) -> None:
    for line in (b"one\n", b"two\n"):
        with open_to_append(shared / "lines") as lines:
            lines.write(line)
    assert (shared / "lines").read_bytes() == b"one\ntwo\n"


def test_a_file_is_replaced_whole(victim: Path, shared: Path) -> None:
    path = shared / "config.yaml"
    for text in ("first", "second: \N{BLACK SMALL SQUARE}"):
        replace_text(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()
    # A link at the file's own name is replaced, not followed; the staged name is another each time.
    path.unlink()
    path.symlink_to(victim)
    (shared / f".config.yaml.{os.getpid()}").symlink_to(victim)
    replace_text(path, "third")
    assert (path.is_symlink(), path.read_text(), victim.read_text()) == (False, "third", "precious")


def test_nothing_is_left_of_what_cannot_be_written(shared: Path) -> None:
    (shared / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        replace_text(shared / "taken", "text")
    with pytest.raises(UnicodeEncodeError):
        replace_text(shared / "other", "\ud800")
    assert [path.name for path in shared.iterdir()] == ["taken"]


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
