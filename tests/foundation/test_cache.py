"""Locks and eviction of cache entries."""

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from foundation.cache import cache_root, evict, exclusive

HOLD = """
import fcntl, sys
with open(sys.argv[1], "r+b") as lock:
    fcntl.flock(lock, fcntl.LOCK_SH)
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("given", "root"), [("/somewhere/else", "/somewhere/else"), ("", "/home/me/.cache")]
)
def test_the_root_is_where_the_variable_says(
    given: str, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", given)
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_root() == Path(root)


def entry(directory: Path) -> tuple[Path, Path]:
    made = directory / "entry"
    made.mkdir()
    (made / "lock").touch()
    return made, made / "lock"


def test_an_entry_is_evicted_only_while_no_process_holds_it(tmp_path: Path) -> None:
    made, lock = entry(tmp_path)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert not evict(made, lock)
    assert made.is_dir()
    holder.communicate()
    assert evict(made, lock)
    assert not made.exists()
    assert not evict(made, lock)


def test_whoever_waits_for_a_lock_is_told_once(tmp_path: Path) -> None:
    lock = tmp_path / "not" / "there" / "lock"
    waited: list[str] = []
    with exclusive(lock, lambda: waited.append("waiting")):
        assert waited == []
        held = lock.open("r+b")
        with pytest.raises(BlockingIOError):
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def give_up() -> None:
        waited.append("waiting")
        held.close()

    fcntl.flock(held, fcntl.LOCK_EX)
    with exclusive(lock, give_up):
        assert waited == ["waiting"]
