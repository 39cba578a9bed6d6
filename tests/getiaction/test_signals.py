import os
import signal
import subprocess
import sys
import threading

import pytest

from getiaction.signals import Stopped, StopSignals

TWICE = """
import os, signal
from getiaction.signals import StopSignals
with StopSignals() as signals:
    signals.deferred = True
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    print(signals.received.name, flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    print("still here", flush=True)
"""


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_what_runs_at_once(signum: signal.Signals, status: int) -> None:
    former = signal.getsignal(signum)
    with pytest.raises(Stopped) as stopped, StopSignals() as signals:
        os.kill(os.getpid(), signum)
    assert stopped.value.code == status
    assert stopped.value.signal is signals.received is signum
    assert signal.getsignal(signum) is former


def test_a_deferred_signal_is_noted_down(capfd: pytest.CaptureFixture[str]) -> None:
    with StopSignals() as signals:
        signals.deferred = True
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received is signal.SIGTERM
        os.kill(os.getpid(), signal.SIGTERM)
    assert capfd.readouterr().err.split("\n") == ["", "SIGTERM: ending after this step", ""]


def test_ctrl_c_does_not_wait_a_second_time() -> None:
    ended = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (130, "SIGTERM\n")
    assert "SIGINT again: ending at once" in ended.stderr


def test_a_ctrl_c_that_arrives_twice_is_one() -> None:
    program = TWICE.replace("SIGTERM", "SIGINT")
    once = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (once.returncode, once.stdout) == (0, "SIGINT\nstill here\n")
    assert once.stderr == "\nSIGINT: ending after this step, again to end at once\n"
    later = program.replace("print(signals", "import time; time.sleep(0.6); print(signals")
    again = subprocess.run([sys.executable, "-c", later], capture_output=True, text=True)
    assert (again.returncode, again.stdout) == (130, "SIGINT\n")


def test_signals_taken_by_somebody_else_are_taken_back() -> None:
    with StopSignals() as signals:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signals.install()
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGTERM)


def test_another_thread_leaves_them_alone() -> None:
    former = signal.getsignal(signal.SIGTERM)
    seen = []

    def enter() -> None:
        with StopSignals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [former]
