"""Run directory in S3, and the local directory in which a training run is written first."""

import datetime
import json
import shutil
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foundation import storage
from foundation.cache import cache_root
from foundation.errors import (
    FoundationError,
    IntegrityError,
    NotFound,
    PreconditionFailed,
    StorageError,
)
from foundation.manifest import MANIFEST, UNFINISHED, remove_unfinished
from foundation.storage.paths import remote
from foundation.storage.s3.cache import directory_of
from positronic.errors import CheckpointError
from positronic.vendors.lerobot.training.config_file import FILE_NAME as CONFIG
from positronic.vendors.lerobot.training.run_directory import (
    CHECKPOINTS,
    LAST,
    RunDirectory,
    fault_of,
    say,
    say_passed_over,
    set_aside,
    sorted_steps,
    steps_in,
)

CURVES = "tensorboard"
EVENTS = "events.out.*"


# Claims the name in S3; a local copy says which run the local directory belongs to.
RUN = "run.json"


class Publisher:
    """Publishes checkpoints in a background thread, in order; failures are retried with the next.

    Args:
        place: URI of the run in S3.
        path: Its local directory.
    """

    def __init__(self, place: str, path: Path) -> None:
        self.place, self.path = place, path
        self.replaceable: set[str] = set()
        """Damaged checkpoints in S3, which new ones may replace."""
        self._waiting: list[str] = []
        self._published: list[str] = []
        self._sizes: dict[str, int] = {}
        self._failure: str | None = None
        self._wanted = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; the run's settings are published at once."""
        # Daemon: a hanging transfer must not keep a process that was told to end at once.
        self._thread = threading.Thread(target=self._work, name="publisher", daemon=True)
        self._wanted.set()
        self._thread.start()

    def add(self, name: str) -> None:
        """Queue a finished checkpoint for publication; returns at once."""
        self._waiting.append(name)
        self._wanted.set()

    def close(self) -> str | None:
        """Wait until everything is published; return a message on failures, or None."""
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
        """Publish a finished checkpoint, and point ``last`` at it.

        Raises:
            StorageError: it cannot be published.
        """
        uri = storage.join(self.place, CHECKPOINTS, name)
        # Nobody can have read an incomplete one.
        may_replace = name in self.replaceable or not storage.is_whole(uri)
        storage.publish(self.path / CHECKPOINTS / name, uri, replace=may_replace)
        if is_last:
            self.point_to(name)
        self._published.append(name)
        self._give_up_copies()

    def point_to(self, name: str) -> None:
        """Point ``last`` at a checkpoint."""
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
        """Publish an append-only file; each start of the command has its own curves."""
        name = file.relative_to(self.path).as_posix()
        content = file.read_bytes() if file.is_file() else b""
        if len(content) > self._sizes.get(name, 0):
            storage.write_bytes(storage.join(self.place, name), content)
            self._sizes[name] = len(content)

    def _give_up_copies(self) -> None:
        """Remove local copies of published checkpoints, except the newest."""
        newest = sorted_steps(self._published)[-1]
        for name in self._published:
            copy = self.path / CHECKPOINTS / name
            if name != newest and copy.is_dir():
                # A killed process must not leave half of one.
                gone = copy.rename(copy.with_name(f"{UNFINISHED}{name}"))
                shutil.rmtree(gone)


def run_directory(output_dir: str, run_name: str) -> RunDirectory:
    """Return the directory of the run ``run_name`` below ``output_dir``, local or in S3.

    Raises:
        StorageError: ``output_dir`` is not a valid path.
    """
    place = storage.join(output_dir, run_name)
    if storage.is_remote(output_dir):
        return RemoteRunDirectory(place)
    return RunDirectory(place, storage.local(place))


class Unfinished(Exception):
    """A checkpoint is not in S3 yet, and never will be."""


class RemoteRunDirectory(RunDirectory):
    """A run in S3, which is authoritative; the local directory is ahead of it."""

    def __init__(self, place: str) -> None:
        location = remote(place)
        name = location.key.rpartition("/")[2]
        super().__init__(
            place, cache_root() / "positronic" / "runs" / directory_of(location).name / name
        )
        self._publisher = Publisher(place, self.path)

    def begin(self) -> None:
        """Claim the name in S3; of two concurrent runs, one gets it."""
        self.require_fresh()
        claim = _claim()
        self._write_claim(claim)
        self._begin_locally(claim)

    def resume(self) -> Path | None:
        """Publish checkpoints that a killed run had not, and return the newest complete one.

        It is fetched unless the local directory has the same content. See :class:`RunDirectory`.
        """
        claim = self._read_claim()
        if not (self.path / RUN).is_file() or (self.path / RUN).read_bytes() != claim:
            self._begin_locally(claim)
        self._lock()
        remove_unfinished(self.checkpoints)
        self._publish_leftovers()
        found = self.newest()
        self._set_aside_after(found)
        if found is not None:
            self._point_to(found)
            self._publisher.point_to(found.name)
        if storage.exists(config := storage.join(self.place, CONFIG)):
            (self.path / CONFIG).write_bytes(storage.read_bytes(config))
        return found

    def newest(self) -> Path | None:
        """Return the newest complete checkpoint, in S3 or not yet published."""
        wrong = []
        there = self._names()
        for name in reversed(sorted_steps(sorted({*there, *steps_in(self.checkpoints)}))):
            try:
                return self._whole(name, name in there)
            except CheckpointError as error:
                wrong.append(say_passed_over(self._uri(name), str(error)))
                self._publisher.replaceable.add(name)
            except Unfinished as error:
                say_passed_over(self._uri(name), str(error))
        if wrong:
            raise CheckpointError(f"{self.place} has no whole checkpoint: {'; '.join(wrong)}")
        return None

    def saved(self, checkpoint: Path) -> None:
        """Publish a new checkpoint in the background."""
        self._publisher.add(checkpoint.name)

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """Publish in the background; at the end wait until all is done.

        Raises:
            StorageError: something could not be published; the message says where it is.
        """
        self._publisher.start()
        try:
            yield
        except Exception:
            if failure := self._publisher.close():
                say(failure)
            raise
        except BaseException:
            self._finish()
            raise
        self._finish()

    def _finish(self) -> None:
        if failure := self._publisher.close():
            raise StorageError(failure)

    def _whole(self, name: str, is_there: bool) -> Path:
        """Return a verified local copy of the checkpoint ``name``.

        Raises:
            Unfinished: its publication was stopped, without damage.
            CheckpointError: it is damaged or incomplete.
            StorageError: S3 does not answer.
        """
        local, uri = self.checkpoints / name, self._uri(name)
        fault = fault_of(local)
        if not is_there or not storage.is_whole(uri):
            if fault is None:
                return local
            raise Unfinished("its publication was stopped") if is_there else CheckpointError(fault)
        try:
            if MANIFEST not in storage.listing(uri):
                raise CheckpointError(f"it has no {MANIFEST}")
            sealed = storage.read_bytes(storage.join(uri, MANIFEST))
            if fault is None and (local / MANIFEST).read_bytes() == sealed:
                return local
            fetched = storage.fetch(uri, required=MANIFEST)
        except (IntegrityError, NotFound, PreconditionFailed) as error:
            raise CheckpointError(str(error)) from error
        if fault := fault_of(fetched):
            raise CheckpointError(fault)
        return fetched

    def _publish_leftovers(self) -> None:
        there = self._names()
        whole = [name for name in there if storage.is_whole(self._uri(name))]
        newest = max((int(name) for name in whole), default=-1)
        for name in steps_in(self.checkpoints):
            if name in whole or fault_of(self.checkpoints / name) is not None:
                continue
            say(f"publishing {self._uri(name)}, which an earlier start had not")
            self._publisher.publish(name, is_last=int(name) > newest)

    def _names(self) -> list[str]:
        return sorted_steps(storage.children(storage.join(self.place, CHECKPOINTS)))

    def _uri(self, name: str) -> str:
        return storage.join(self.place, CHECKPOINTS, name)

    def _read_claim(self) -> bytes:
        place = storage.join(self.place, RUN)
        if storage.exists(place):
            return storage.read_bytes(place)
        if not self._names():
            raise self._nothing()
        # A run that was copied to S3 has no claim.
        self._write_claim(claim := _claim())
        return claim

    def _write_claim(self, claim: bytes) -> None:
        place = storage.join(self.place, RUN)
        try:
            storage.write_bytes(place, claim, if_absent=True)
        except StorageError as error:
            # The write may have succeeded although its response was lost.
            if not storage.exists(place):
                raise
            if storage.read_bytes(place) != claim:
                raise self._taken() from error

    def _begin_locally(self, claim: bytes) -> None:
        """Make the local directory; rename one that belongs to another run of the same name."""
        if self.path.exists():
            say(f"{self.path} is not of this run; it is set aside as {self.path.name}.stale")
            set_aside(self.path, f"{self.path.name}.stale")
        self.path.mkdir(parents=True)
        (self.path / RUN).write_bytes(claim)
        self._lock()


def _claim() -> bytes:
    document = {
        "id": uuid.uuid4().hex,
        "begun": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
    }
    return f"{json.dumps(document)}\n".encode()
