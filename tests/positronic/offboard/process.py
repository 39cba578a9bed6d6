"""Runs the server in a process of its own, which signals can reach."""

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

# What whoever runs the tests does with signals, as `nohup` or a shell's `&`, is inherited.
DEFAULT_SIGNALS = """
import signal
for number in (signal.SIGHUP, signal.SIGTERM):
    signal.signal(number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
"""
# As `python -m`: the module, and its arguments.
RUN_MODULE = """
import runpy, sys
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
SCRIPT = """
import json, sys
from positronic.offboard.serving.process import run_to_the_end
from positronic.offboard.serving.process import bind
from positronic.offboard.serving.logs import configure
from positronic.offboard.serving.limits import ServerOptions
from positronic.offboard.serving.server import serve_forever
from positronic.offboard.models.store import ModelStore
from tests.positronic.offboard.small_models import Source
job = json.loads(sys.argv[1])
configure("text")
source = Source(["010000", "020000"])
for name in job.pop("held", []):
    source.hold(name)
listener = bind("127.0.0.1", 0)
print(listener.getsockname()[1], flush=True)
run_to_the_end(serve_forever(
    ModelStore(source, "010000", memory_bytes=10**6),
    listener,
    "127.0.0.1",
    lambda model: print("ready", flush=True),
    options=ServerOptions(**job),
))
print("over", flush=True)
"""


def line_of(process: "subprocess.Popen[str]", what: str, seconds: float = 120.0) -> str:
    """Wait for a line of a process, which is killed where it does not say one in time."""
    assert process.stdout is not None
    deadline = threading.Timer(seconds, process.kill)
    deadline.start()
    try:
        line = process.stdout.readline()
    finally:
        deadline.cancel()
    assert line, f"the process ended, or was {seconds:g} s late, while a test waited for {what}"
    return line


class Process:
    """A server with the options of ``job``; checkpoints in ``held`` never finish loading."""

    def __init__(self, **job: Any) -> None:
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", DEFAULT_SIGNALS + SCRIPT, json.dumps(job)]
        self.process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
        self.port = int(self.line())

    def line(self) -> str:
        return line_of(self.process, "its port, or to be ready").strip()

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, str]:
        """Wait for the end: exit status and log."""
        _, err = self.process.communicate(timeout=30)
        return self.process.returncode, err


@contextlib.contextmanager
def process(**job: Any) -> Iterator[Process]:
    server = Process(**job)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.communicate()
