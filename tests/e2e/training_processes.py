"""Training commands in processes that can be killed, forked from one that has imported torch."""

import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HEAVY = ["positronic.vendors.lerobot.train", "positronic.vendors.lerobot.training.run"]
STEP = re.compile(r"^step (\d+)/\d+  loss (\S+)", re.MULTILINE)


def forkserver() -> Any:
    """A context whose processes begin with everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(HEAVY)
    return context


class Training:
    """One start of the training command, in a process of its own."""

    def __init__(self, context: Any, argv: Sequence[object], log: Path) -> None:
        self.log = log
        log.parent.mkdir(exist_ok=True)
        log.write_text("")
        environment = {k: v for k, v in os.environ.items() if k.startswith(("AWS_", "XDG_"))}
        words = [str(word) for word in argv]
        self.process = context.Process(target=_train, args=(words, environment, str(log)))
        self.process.start()

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def losses(self) -> dict[int, str]:
        """What the log says of each step."""
        return {int(step): loss for step, loss in STEP.findall(self.output)}

    @property
    def alive(self) -> bool:
        return bool(self.process.is_alive())

    def send(self, signum: int) -> None:
        if self.alive:
            os.kill(self.process.pid, signum)

    def interrupt(self) -> None:
        """Send SIGINT to all of its processes, as a terminal does at Ctrl-C."""
        os.killpg(self.process.pid, signal.SIGINT)

    def wait_until(self, happened: Callable[[], bool]) -> None:
        """Wait for something, or for the end of the process."""
        while self.alive and not happened():
            time.sleep(0.0005)

    def status(self) -> int:
        """Wait for the end; return the exit status, or minus the signal that killed it."""
        self.process.join(120)
        assert self.process.exitcode is not None, f"it hangs: {self.output}"
        return int(self.process.exitcode)


def _train(argv: list[str], environment: dict[str, str], log: str) -> None:
    os.environ.update(environment)
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    from positronic.vendors.lerobot.train import status

    sys.exit(status(argv))
