"""Runs ``server_process`` and counts what it holds; and a session beside the fault."""

import collections
import contextlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil
from websockets.sync.client import ClientConnection

from tests.positronic.offboard.process import DEFAULT_SIGNALS, RUN_MODULE, line_of
from tests.positronic.offboard.running import ask, raw, ready

MIB = 1 << 20
# A session is thousands of objects; what is interned or cached for good comes to some hundreds.
FEW_OBJECTS = 1000


@dataclass(frozen=True)
class Holdings:
    """What a process holds at one moment."""

    resident: int
    objects: dict[str, int]
    files: int
    threads: int

    def more_than(self, before: "Holdings") -> dict[str, int]:
        """Types of which there are more than before."""
        grown = collections.Counter(self.objects)
        grown.subtract(before.objects)
        return dict(collections.Counter({k: n for k, n in grown.items() if n > 0}).most_common(12))


class ServerProcess:
    """A server in a process of its own."""

    def __init__(self, log: Path, **job: Any) -> None:
        self._start(log, f"{__package__}.server_process", json.dumps(job))
        self.port = int(self._answer())

    def _start(self, log: Path, *module_and_arguments: str) -> None:
        self._log = log
        # Not a pipe: one that nobody reads stops the server once it is full.
        with log.open("w") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", DEFAULT_SIGNALS + RUN_MODULE, *module_and_arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )

    def _line(self) -> str:
        try:
            return line_of(self.process, "an answer of the server's process")
        except AssertionError as error:
            raise AssertionError(self.log[-3000:]) from error

    def _answer(self) -> Any:
        return json.loads(self._line())

    def wait_until_ready(self) -> Self:
        assert self._answer() == "ready"
        return self

    def order(self, *words: str) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def holdings(self) -> Holdings:
        return Holdings(**self.order("holdings"))

    def stall(self) -> float:
        """Take the longest time that the event loop was busy with one thing, in CPU seconds."""
        return float(self.order("stall"))

    @property
    def cpu_seconds(self) -> float:
        """Processor time that it has used."""
        used = psutil.Process(self.process.pid).cpu_times()
        return float(used.user + used.system)

    @property
    def peak(self) -> int:
        """The largest resident memory so far, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    @property
    def log(self) -> str:
        return self._log.read_text()

    def assert_lives(self) -> None:
        """It runs, answers a new session, and nothing went past what it expects of clients."""
        assert self.process.poll() is None, self.log[-3000:]
        with raw(self.port) as session:
            ready(session)
            assert ask(session, grip=0.5)["result"][0]["target_grip"] == 0.5
        # uvicorn tells of text that is none in this way.
        log = re.sub(r"Invalid UTF-8 sequence received from client\.\nTraceback", "", self.log)
        _, traceback, text = log.partition("Traceback")
        assert not traceback, text[:3000]

    def wait_for_files(self, number: int) -> None:
        """Wait until no more than ``number`` files are open: the connections that are over."""
        process = psutil.Process(self.process.pid)
        done = threading.Event()
        for _ in range(1000):
            if process.num_fds() <= number:
                return
            done.wait(0.02)
        raise AssertionError(f"{process.num_fds()} files open, expected {number}")

    def assert_ends(self) -> None:
        """It ends by itself, with status 0 and no traceback."""
        assert self.process.wait(30) == 0, self.log[-3000:]
        assert "Traceback" not in self.log, self.log[-3000:]

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


class Command(ServerProcess):
    """``python -m positronic.vendors.lerobot.server``."""

    def __init__(self, log: Path, *flags: str) -> None:
        self._start(log, "positronic.vendors.lerobot.server", "--port=0", *flags)
        self.port = int(self._line().strip().rpartition(":")[2])

    def wait_until_serving(self) -> str:
        """Give the line in which it says so."""
        return self._line()


@contextlib.contextmanager
def command(log: Path, *flags: str) -> Iterator[Command]:
    """Run the command until the block ends."""
    server = Command(log, *flags)
    try:
        yield server
    finally:
        server.end()


@contextlib.contextmanager
def server_process(log: Path, **job: Any) -> Iterator[ServerProcess]:
    """Run a server until the block ends."""
    server = ServerProcess(log, **job)
    try:
        yield server
    finally:
        server.end()


class Neighbour:
    """A session beside the fault, which goes on asking, and checks every answer."""

    PAUSE_S = 0.004

    def __init__(self, port: int, path: str = "/api/v1/session", token: str | None = None) -> None:
        self.asked = 0
        self.wrong: list[Any] = []
        self._stop = threading.Event()
        self._answered = threading.Condition()
        self._stack = contextlib.ExitStack()
        header = {"Authorization": f"Bearer {token}"} if token else {}
        self._connection: ClientConnection = self._stack.enter_context(
            raw(port, path, additional_headers=header)
        )
        ready(self._connection)
        self._thread = threading.Thread(target=self._run)

    def observation(self, number: int) -> dict[str, Any]:
        return {"grip": number}

    def is_right(self, number: int, reply: dict[str, Any]) -> bool:
        action = reply["result"][0]
        return bool((action["target_grip"], action["count"]) == (number, number))

    def _run(self) -> None:
        try:
            while not self._stop.wait(self.PAUSE_S):
                number = self.asked + 1
                reply = ask(self._connection, **self.observation(number))
                if not self.is_right(number, reply):
                    self.wrong.append(reply)
                with self._answered:
                    self.asked = number
                    self._answered.notify()
        except Exception as error:
            with self._answered:
                self.wrong.append(error)
                self._answered.notify()

    def wait_for(self, asked: int, timeout: float = 120) -> bool:
        """Wait until so many were answered, or one of them wrong; whether it came to that."""
        with self._answered:
            return self._answered.wait_for(lambda: bool(self.wrong) or self.asked >= asked, timeout)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        # One of two was asked after all that went before.
        on = self.wait_for(self.asked + 2, 20)
        self._stop.set()
        self._thread.join(30)
        self._stack.close()
        assert on, "a reply was lost"
        assert self.wrong == []
