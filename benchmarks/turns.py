"""Measurement of processes in turns, so that whatever else the machine does meets all of them.

While one has its turn the others are stopped, worker processes included: nothing is fetched ahead
in another's time.
"""

import atexit
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def cpu_seconds() -> float:
    """Processor seconds of this process and of its living children."""
    import psutil  # the processes of other environments, which import this too, may lack it

    used = [psutil.Process().cpu_times()]
    for child in psutil.Process().children(recursive=True):
        used.append(child.cpu_times())
    return float(sum(times.user + times.system for times in used))


class Child:
    """A process that answers each line with a line, both JSON.

    Args:
        name: What it is called in tables.
        command: Its program and arguments.
        log: Where it prints.
        env: Variables besides this process's own.
        group: Whether it and its workers are a group that signals go to.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        env: Mapping[str, str] | None = None,
        *,
        group: bool = False,
    ) -> None:
        self.name = name
        self._log = log
        with log.open("w") as stderr:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, "HF_HUB_OFFLINE": "1", **(env or {})},
                start_new_session=group,
            )

    def ask(self, question: Any) -> Any:
        """Let it answer a question."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def line(self) -> str:
        """Wait for a line, whatever is in it."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"error: {self.name} ended:\n{self._log.read_text()[-3000:]}")
        return line

    def answer(self) -> Any:
        """Wait for an answer."""
        return json.loads(self.line())

    def end(self) -> None:
        """Ask nothing more, and wait until it has ended."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


class Side(Child):
    """A child that is stopped between questions.

    Args:
        name: What it is called in tables.
        script: A program that calls :func:`serve`.
        job: Its one argument.
        log: Where it prints.
        env: Variables besides this process's own.
    """

    def __init__(
        self, name: str, script: Path, job: dict[str, Any], log: Path, env: dict[str, str]
    ) -> None:
        command = [sys.executable, str(script), "--side", json.dumps(job)]
        super().__init__(name, command, log, env, group=True)
        # It is stopped most of the time, and would not see that nobody asks any more.
        atexit.register(self.end)
        self.answer()
        self.signal(signal.SIGSTOP)

    def ask(self, question: Any) -> Any:
        """Let it run until it has answered."""
        self.signal(signal.SIGCONT)
        answer = super().ask(question)
        self.signal(signal.SIGSTOP)
        return answer

    def end(self) -> None:
        """End it and its workers."""
        if self.process.poll() is None:
            self.signal(signal.SIGKILL)
            self.process.wait()
        atexit.unregister(self.end)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it and its workers."""
        os.killpg(self.process.pid, number)


class Line:
    """The other end: what a side hears and says."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
        # Whatever the libraries print goes into the log.
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def say(self, answer: Any) -> None:
        """Answer."""
        print(json.dumps(answer), file=self._out, flush=True)

    def hear(self) -> Any:
        """Wait for a question; at the end of them end, without waiting for workers."""
        line = sys.stdin.readline()
        if not line:
            os._exit(0)
        return json.loads(line)


def end_as_asked() -> None:
    """Let SIGTERM end this process in the way in which its sides are ended too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def serve(answer: Callable[[Any], Any]) -> None:
    """Answer questions until there are no more."""
    line = Line()
    line.say("ready")
    while True:
        line.say(answer(line.hear()))


@contextmanager
def quiet(log: Path) -> Iterator[None]:
    """Let what libraries print meanwhile go into ``log``."""
    kept = os.dup(sys.stderr.fileno())
    with log.open("w") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
        try:
            yield
        finally:
            os.dup2(kept, sys.stderr.fileno())
            os.close(kept)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median and range, for a table."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def torchcodec_env(folder: Path) -> dict[str, str]:
    """Variables under which torchcodec finds FFmpeg's libraries, those that PyAV brings along.

    Without a system's FFmpeg torchcodec does not load, and LeRobot falls back to PyAV.
    """
    import av

    libraries = Path(av.__file__).parents[1] / "av.libs"
    folder.mkdir()
    for path in (*libraries.glob("libav*-*"), *libraries.glob("libsw*-*")):
        name, version = path.name.split(".so.")
        (folder / f"{name.split('-')[0]}.so.{version.split('.')[0]}").symlink_to(path)
    places = [str(folder), str(libraries), os.environ.get("LD_LIBRARY_PATH", "")]
    return {"LD_LIBRARY_PATH": ":".join(place for place in places if place)}
