import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from foundation.stopping import (
    ECHO_S,
    Received,
    Stopped,
    StopSignals,
    interrupt_at_every_signal,
)
from tests.terminal import terminal
from tests.waiting import join, line_of

TWICE = """
import os, signal
from foundation.stopping import StopSignals
with StopSignals() as signals:
    signals.deferred = True
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    print(signals.received.name, flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    print("still here", flush=True)
"""

HUNG_UP = """
import sys, time
from foundation.stopping import StopSignals
with StopSignals() as signals:
    signals.deferred = True
    print("working", flush=True)
    while signals.received is None:
        time.sleep(0.01)
    time.sleep(0.2)
    print("what nobody sees is no error", flush=True)
    print("here neither", file=sys.stderr, flush=True)
    open(sys.argv[1], "w").write(signals.received.name)
"""


@pytest.mark.parametrize(
    ("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
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
    ended = subprocess.run(
        [sys.executable, "-c", TWICE], capture_output=True, text=True, timeout=120
    )
    assert (ended.returncode, ended.stdout) == (130, "SIGTERM\n")
    assert "SIGINT again: ending at once" in ended.stderr


def test_a_ctrl_c_that_arrives_twice_is_one() -> None:
    program = TWICE.replace("SIGTERM", "SIGINT")
    once = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert (once.returncode, once.stdout) == (0, "SIGINT\nstill here\n")
    assert once.stderr == "\nSIGINT: ending after this step, again to end at once\n"
    later = program.replace("print(signals", "import time; time.sleep(1.1); print(signals")
    again = subprocess.run(
        [sys.executable, "-c", later], capture_output=True, text=True, timeout=120
    )
    assert (again.returncode, again.stdout) == (130, "SIGINT\n")


def test_a_closed_terminal_lets_the_work_come_to_its_end(tmp_path: Path) -> None:
    with terminal(HUNG_UP, str(tmp_path / "saved")) as screen:
        screen.wait_for("working")
        screen.close()
        assert screen.status() == 0
    assert (tmp_path / "saved").read_text() == "SIGHUP"


def test_ctrl_c_that_ends_the_reader_of_a_pipe_too(tmp_path: Path) -> None:
    """As of ``2>&1 | tee log``, which may end a moment later."""
    read, write = os.pipe()
    worker = subprocess.Popen(
        [sys.executable, "-c", HUNG_UP, str(tmp_path / "saved")], stdout=write, stderr=write
    )
    os.close(write)
    with open(read) as reader:
        assert line_of(reader, "the worker") == "working\n"
        worker.send_signal(signal.SIGINT)
        time.sleep(0.05)
    assert worker.wait(120) == 0
    assert (tmp_path / "saved").read_text() == "SIGINT"


def test_nohup_means_what_it_says() -> None:
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.received is None
    finally:
        signal.signal(signal.SIGHUP, former)


def own(signum: int, frame: object) -> None:
    """A handler that somebody has chosen."""


@pytest.mark.parametrize("chosen", [signal.SIG_IGN, own])  # nohup's, or another one
def test_every_signal_interrupts_as_ctrl_c_does(chosen: Any) -> None:
    former = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGHUP)}
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, chosen)
        interrupt_at_every_signal()
        with pytest.raises(KeyboardInterrupt) as interrupted:
            os.kill(os.getpid(), signal.SIGTERM)
        assert interrupted.value.args == (signal.SIGTERM,)
        assert signal.getsignal(signal.SIGHUP) is chosen
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        for signum, handler in former.items():
            signal.signal(signum, handler)


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
    join([thread], "the other thread")
    assert seen == [former]


def test_only_a_second_request_repeats_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("foundation.stopping.time.monotonic", lambda: now)
    received = Received()
    assert not received.repeats(signal.SIGINT)
    assert received.first is signal.SIGINT
    assert not received.repeats(signal.SIGINT)
    assert not received.repeats(signal.SIGHUP)
    assert received.repeats(signal.SIGTERM)
    now += ECHO_S
    assert received.repeats(signal.SIGINT)
    assert not received.repeats(signal.SIGHUP)
    assert received.first is signal.SIGINT
