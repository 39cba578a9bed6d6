"""Killing a process of one's own at an exact step."""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Whatever makes, opens or removes a name; renameat2 is no function of Python's.
NAMES = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link")

Event = Callable[[str, tuple[Any, ...]], bool]


def files_in(folder: Path) -> Event:
    """The steps that change or open something in ``folder``, and swaps of directories."""
    inside = os.fspath(folder)

    def counts(event: str, arguments: tuple[Any, ...]) -> bool:
        if event in NAMES and isinstance(arguments[0], str | bytes | os.PathLike):
            return os.fsdecode(arguments[0]).startswith(inside)
        return event == "ctypes.dlsym" and arguments[1] == "renameat2"

    return counts


def renames_to(target: Path) -> Event:
    """Renaming anything to ``target``."""
    name = os.fspath(target)
    return lambda event, arguments: event == "os.rename" and arguments[1] == name


def removals_of(target: Path) -> Event:
    """Removing the file ``target``."""
    name = os.fspath(target)
    return lambda event, arguments: event == "os.remove" and os.fspath(arguments[0]) == name


def requests(event: str, _: tuple[Any, ...]) -> bool:
    """Sending a request over HTTP."""
    return event == "http.client.send"


def killed(work: Callable[[], Any], counts: Event, step: int = 1) -> bool:
    """Run ``work`` in a fork that is killed (SIGKILL) just before its ``step``-th such event.

    False if it came to its end before that.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _kill_before(counts, step)
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    _, waited = os.waitpid(child, 0)
    if os.WIFSIGNALED(waited):
        assert os.WTERMSIG(waited) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(waited) == 0, "the work failed in the fork; see standard error"
    return False


def _kill_before(counts: Event, step: int) -> None:
    left = step

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if counts(event, arguments):
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
