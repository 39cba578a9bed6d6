"""Publish a run's checkpoints, curves and settings to S3 while it is being trained."""

import shutil
import threading
from pathlib import Path

from foundation import storage
from foundation.errors import FoundationError
from foundation.manifest import UNFINISHED
from positronic.vendors.lerobot.training.config_file import FILE_NAME as CONFIG
from positronic.vendors.lerobot.training.run_directory import CHECKPOINTS, LAST, say, sorted_steps

CURVES = "tensorboard"
EVENTS = "events.out.*"


class Publisher:
    """Publishes in a thread of its own, in order; what fails is tried again with the next one.

    Args:
        place: The run in S3.
        path: Its local directory.
    """

    def __init__(self, place: str, path: Path) -> None:
        self.place, self.path = place, path
        self.replaceable: set[str] = set()
        """Checkpoints in S3 that are damaged, in whose place new ones may be put."""
        self._waiting: list[str] = []
        self._published: list[str] = []
        self._sizes: dict[str, int] = {}
        self._failure: str | None = None
        self._wanted = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; the run's settings are published at once."""
        # A thread that hangs in a transfer must not keep a process that was told to end at once.
        self._thread = threading.Thread(target=self._work, name="publisher", daemon=True)
        self._wanted.set()
        self._thread.start()

    def add(self, name: str) -> None:
        """Have a finished checkpoint published; returns at once."""
        self._waiting.append(name)
        self._wanted.set()

    def close(self) -> str | None:
        """Wait until everything is published; return what could not be, in a line."""
        assert self._thread is not None
        self._closing = True
        self._wanted.set()
        self._thread.join()
        if self._failure is None:
            return None
        left = ", ".join(str(self.path / CHECKPOINTS / name) for name in self._waiting)
        what = f"checkpoints are on this machine only ({left})" if left else "curves are missing"
        return (
            f"{self.place} is not complete: {what}; the same command with --resume=True publishes "
            f"them. {self._failure}"
        )

    def publish(self, name: str, *, is_last: bool = True) -> None:
        """Publish a finished checkpoint, and let ``last`` name it.

        Raises:
            StorageError: it cannot be.
        """
        uri = storage.join(self.place, CHECKPOINTS, name)
        # What was never whole, nobody can have read.
        may_replace = name in self.replaceable or not storage.is_whole(uri)
        storage.publish(self.path / CHECKPOINTS / name, uri, replace=may_replace)
        if is_last:
            self.point_to(name)
        self._published.append(name)
        self._give_up_copies()

    def point_to(self, name: str) -> None:
        """Let ``last`` name a checkpoint."""
        storage.write_bytes(storage.join(self.place, CHECKPOINTS, LAST), f"{name}\n".encode())

    def _work(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            closing = self._closing
            try:
                self._publish_all()
                self._failure = None
            except (FoundationError, OSError) as error:
                self._failure = str(error)
                again = "" if closing else "; trying again with the next checkpoint"
                say(f"not published to {self.place}: {error}{again}")
            if closing:
                return

    def _publish_all(self) -> None:
        while self._waiting:
            self.publish(self._waiting[0])
            say(f"published {storage.join(self.place, CHECKPOINTS, self._waiting[0])}")
            del self._waiting[0]
        for file in (self.path / CONFIG, *sorted((self.path / CURVES).glob(EVENTS))):
            self._publish_file(file)

    def _publish_file(self, file: Path) -> None:
        """Publish a file that only grows; each start of the command has curves of its own."""
        name = file.relative_to(self.path).as_posix()
        content = file.read_bytes() if file.is_file() else b""
        if len(content) > self._sizes.get(name, 0):
            storage.write_bytes(storage.join(self.place, name), content)
            self._sizes[name] = len(content)

    def _give_up_copies(self) -> None:
        """Remove local copies of what is in S3; the newest stays."""
        newest = sorted_steps(self._published)[-1]
        for name in self._published:
            copy = self.path / CHECKPOINTS / name
            if name != newest and copy.is_dir():
                # A process killed meanwhile must not leave half a one.
                gone = copy.rename(copy.with_name(f"{UNFINISHED}{name}"))
                shutil.rmtree(gone)
