"""Runs the server in a process of its own, which signals can reach."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

SCRIPT = """
import json, sys
from positronic.offboard.serving.ending import run_to_the_end
from positronic.offboard.serving.listen import bind
from positronic.offboard.serving.logs import configure
from positronic.offboard.serving.options import ServerOptions
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


class Process:
    """A server with the options of ``job``; checkpoints in ``held`` never finish loading."""

    def __init__(self, **job: Any) -> None:
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", SCRIPT, json.dumps(job)]
        self.process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
        self.port = int(self.line())

    def line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line, self.process.communicate()
        return line

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
