"""Settings for every test, made before torch is imported anywhere."""

import os
import signal

import pytest

# Tests run beside each other and beside servers that they start. OpenMP threads that spin while
# they wait made such a run ten times slower on two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# What started the tests may ignore or block signals (`nohup`, a shell in the background, a service
# manager), and all their children would: tests that send signals, and the programs that they send
# them to, begin as in a terminal.
signal.pthread_sigmask(signal.SIG_SETMASK, ())
signal.signal(signal.SIGINT, signal.default_int_handler)
for signum in (signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD):
    if signal.getsignal(signum) is signal.SIG_IGN:
        signal.signal(signum, signal.SIG_DFL)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    # The tests themselves outlive the terminal, as asked; programs that they start do not inherit a
    # handler.
    signal.signal(signal.SIGHUP, lambda *_: None)

pytest_plugins = ["tests.chromium", "tests.hub_server", "tests.memory", "tests.s3"]

# Seconds for one test; all others have the `timeout` in pyproject.toml.
LONG = {"e2e": 3000, "docker": 1800}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        seconds = [LONG[mark.name] for mark in item.iter_markers() if mark.name in LONG]
        if seconds and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(max(seconds)))


def pytest_runtest_call() -> None:
    """Where LeRobot's own writer made the tests real-time, they would starve what they start."""
    if os.sched_getscheduler(0) == os.SCHED_FIFO:
        from positronic.vendors.lerobot.conversion.video import end_real_time

        end_real_time()


pytest_runtest_teardown = pytest_runtest_call
