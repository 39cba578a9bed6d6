import os
import signal
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

from foundation.stopping import ignore_terminal
from foundation.worker_pool import worker_pool
from tests.waiting import line_of

WORKING = """
import os, subprocess, sys
from foundation.stopping import interrupt_at_every_signal
from foundation.worker_pool import worker_pool
interrupt_at_every_signal()
try:
    with worker_pool(1, os.getpid) as pool:
        pool.submit(os.getpid).result()
        work = 'echo begun; sleep 1; touch "$0"'
        begun = pool.submit(subprocess.run, ["sh", "-c", work, sys.argv[1]])
        try:
            begun.result()
        finally:
            print("waiting", flush=True)
except KeyboardInterrupt as error:
    print("interrupted by", *map(int, error.args or [2]))
"""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_waits_for_what_workers_have_begun(tmp_path: Path, signum: signal.Signals) -> None:
    command = [sys.executable, "-c", WORKING, str(tmp_path / "done")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as program:
        assert program.stdout is not None
        try:
            assert line_of(program.stdout, "the work to begin") == "begun\n"
            # A terminal tells all processes; `kill` and `docker stop` only the first.
            send = os.kill if signum == signal.SIGTERM else os.killpg
            send(program.pid, signum)
            # Impatient people send another one, which must not end the waiting.
            assert line_of(program.stdout, "the signal to arrive") == "waiting\n"
            send(program.pid, signum)
            rest, _ = program.communicate(timeout=60)
        finally:
            program.kill()
    assert rest == f"interrupted by {int(signum)}\n"
    assert (tmp_path / "done").exists()


def test_a_signal_is_not_lost_where_the_pool_is_broken() -> None:
    """It came while a process was begun, and whoever mends the pool would go on without it."""
    made: Any
    with worker_pool(1, ignore_terminal) as made:
        with pytest.raises(BrokenProcessPool):
            made.submit(os._exit, 1).result()
        made.interrupted_by = signal.SIGTERM
        with pytest.raises(KeyboardInterrupt) as stopped:
            made.submit(os.getpid)
    assert stopped.value.args == (signal.SIGTERM,)
