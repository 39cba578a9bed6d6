"""A terminal of its own for a program, which can be closed, as a dropped ssh does."""

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator

OWN = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"


class Terminal:
    """What a program in Python runs in; see :func:`terminal`."""

    def __init__(self, process: subprocess.Popen[bytes], screen: int) -> None:
        self.process, self._screen = process, screen

    def wait_for(self, text: str, timeout_s: float = 120) -> None:
        """Read what is printed until there is ``text`` in it."""
        seen, deadline = "", time.monotonic() + timeout_s
        while text not in seen:
            assert time.monotonic() < deadline, f"waited {timeout_s:g} s for {text!r} in\n{seen}"
            assert self.process.poll() is None, f"ended before {text!r} in\n{seen}"
            if select.select([self._screen], [], [], 0.1)[0]:
                seen += os.read(self._screen, 65536).decode(errors="replace")

    def close(self) -> None:
        """Close it: its processes get SIGHUP, and can neither read nor write any more."""
        os.close(self._screen)
        self._screen = -1

    def status(self) -> int:
        """Wait for the end of the program."""
        return self.process.wait(60)

    def end(self) -> None:
        """Leave nothing behind."""
        self.process.kill()
        self.process.wait(60)
        if self._screen >= 0:
            self.close()


@contextlib.contextmanager
def terminal(code: str, *argv: str, **environment: str) -> Iterator[Terminal]:
    """Run Python code with arguments in a terminal."""
    screen, inside = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", OWN + code, *argv],
        stdin=inside,
        stdout=inside,
        stderr=inside,
        start_new_session=True,
        env={**os.environ, **environment},
    )
    os.close(inside)
    opened = Terminal(process, screen)
    try:
        yield opened
    finally:
        opened.end()
