import subprocess
import sys
import threading

import pytest

from tests.waiting import join, line_of, until

SILENT = "print('first', flush=True); import sys; sys.stdin.read()"


def test_what_did_not_come_is_named() -> None:
    values = iter([0, 0, 7])
    assert until(lambda: next(values), "the third") == 7
    with pytest.raises(AssertionError, match=r"waited 0.1 s for a miracle"):
        until(lambda: False, "a miracle", 0.1)
    with pytest.raises(AssertionError, match=r"waited 0.1 s for 3 of 4"):
        until(lambda: False, lambda: "3 of 4", 0.1)
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    with pytest.raises(AssertionError, match=r"waited 0.1 s for the thread"):
        join([thread], "the thread", 0.1)
    stop.set()
    join([thread], "the thread")


def test_a_silent_process_is_named() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", SILENT], stdin=pipe, stdout=pipe) as process:
        assert line_of(process.stdout, "the first line") == b"first\n"
        with pytest.raises(AssertionError, match=r"waited 0.1 s for the second line"):
            line_of(process.stdout, "the second line", 0.1)
        process.kill()
