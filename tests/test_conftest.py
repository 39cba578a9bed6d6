import os
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = """
import signal
ignored = [s.name for s in signal.valid_signals() if signal.getsignal(s) is signal.SIG_IGN]
print(*ignored, *(s.name for s in signal.pthread_sigmask(signal.SIG_BLOCK, ())))
"""
TESTS = f"""
import signal, subprocess, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
import tests.conftest
signal.raise_signal(signal.SIGHUP)  # whoever said nohup lets the tests go on
print(subprocess.run([sys.executable, "-c", {CHILD!r}], capture_output=True, text=True).stdout)
"""


@pytest.mark.parametrize("signals", ["HUP", "INT", "TERM", "HUP INT QUIT TERM USR1 PIPE"])
def test_signals_that_were_ignored_are_as_in_a_terminal(signals: str) -> None:
    ignoring = ["bash", "-c", f"trap '' {signals}; trap '' HUP; exec \"$@\"", "-"]
    ended = subprocess.run(
        [*ignoring, sys.executable, "-c", TESTS],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONPATH": "."},
        check=True,
    )
    # Python itself always begins without SIGPIPE and SIGXFSZ; tmux may leave out those of job
    # control, which mean nothing to programs that do not read a terminal.
    assert set(ended.stdout.split()) - {"SIGTTIN", "SIGTTOU", "SIGTSTP"} == {"SIGPIPE", "SIGXFSZ"}
