"""Command lines of ``positronic-inference`` for tests, and a server to act on."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from positronic.cli import status
from positronic.inference.command import COMMANDS
from positronic.inference.comparison.command import prepare
from tests.waiting import line_of

ROOT = Path(__file__).parents[3]
POLICIES = "@tests.positronic.inference.policies"
EXPERT, HOLD, PLANNER = (f"--policy={POLICIES}.{name}" for name in ("expert", "hold", "planner"))
SMALL = "--image_size=48,64"


def run(*words: str, command: str = "sim") -> int:
    """Run one command in this process, with small pictures; return its exit status."""
    return status(COMMANDS, "positronic-inference", [command, SMALL, *words], prepare=prepare)


@contextmanager
def expert_server(die_after: int, chunk: int = 0) -> Iterator[str]:
    """Serve the expert in a process of its own and give its port."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.positronic.inference.expert_server"),
            *(str(die_after), str(chunk)),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield line_of(process.stdout, "the expert server").strip()
    finally:
        process.kill()
        process.wait(60)
        process.stdout.close()


def remote(port: str) -> list[str]:
    """The flags of a policy on a server of this machine."""
    return ["--policy=.remote", "--policy.host=127.0.0.1", f"--policy.port={port}"]
