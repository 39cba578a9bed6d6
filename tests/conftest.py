"""Settings for every test, made before torch is imported anywhere."""

import os
import signal

# Tests run beside each other and beside servers that they start. OpenMP threads that spin while
# they wait made such a run ten times slower on two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A shell that starts the tests in the background lets them ignore SIGINT, and all their children.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["tests.chromium", "tests.s3"]


def pytest_runtest_call() -> None:
    """Where LeRobot's own writer made the tests real-time, they would starve what they start."""
    if os.sched_getscheduler(0) == os.SCHED_FIFO:
        from positronic.vendors.lerobot.conversion.video import end_real_time

        end_real_time()


pytest_runtest_teardown = pytest_runtest_call
