"""Killing a process of one's own at an exact step, again and again."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Whatever changes or opens a name; a native library's writing between two of them is not seen.
EVENTS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "ctypes.dlsym")


def killed(work: Callable[[], Any], folder: Path, step: int) -> bool:
    """Run ``work`` in a fork that is killed (SIGKILL) before its ``step``-th step in ``folder``.

    False if it got to its end before.
    """
    child = os.fork()
    if child == 0:
        _kill_before(str(folder), step)
        try:
            work()
        finally:
            os._exit(0 if sys.exc_info()[0] is None else 1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the work failed in the fork; see standard error"
    return False


def _kill_before(folder: str, step: int) -> None:
    left = step

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event not in EVENTS:
            return
        subject = arguments[0]
        if event == "ctypes.dlsym" or (isinstance(subject, str | bytes | os.PathLike)):
            if event != "ctypes.dlsym" and not os.fsdecode(subject).startswith(folder):
                return
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def contents(root: Path) -> dict[str, bytes]:
    """Every file of a dataset by its name, but for the provenance, which says when and by whom."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "provenance.json"
    }
