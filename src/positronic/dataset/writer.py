"""Episode writer: record episodes to a dataset directory, safe for concurrent recorders.

An episode is written into a hidden directory of its own, ``<root>/.staging-...``, which holds the
``.unfinished`` marker. When all its files are complete and on the disk, one rename gives it the
next free number. A reader therefore sees a complete episode or none, a crash leaves at most a
staging directory, and two recorders that try the same number do not collide: the second rename
fails, and that recorder takes the next number.
"""

import errno
import os
import platform
import shutil
import time
import uuid
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from foundation.files import sync
from positronic.dataset import statics
from positronic.dataset.local import numbered
from positronic.dataset.recorded import BLOCK, MAX_UID, META, STATIC, UNFINISHED, UNNAMED
from positronic.dataset.sinks import NumericSink, Sink, VideoSink, is_image
from positronic.errors import DatasetError, EpisodeError

SCHEMA_VERSION = 1
STAGING = ".staging-"


@lru_cache(maxsize=1)
def _writer_info() -> dict[str, str]:
    from importlib import metadata  # slow to import, and only needed to write

    try:
        version = metadata.version("positronic-lightning")
    except metadata.PackageNotFoundError:  # run from a source tree that is not installed
        version = ""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "version": version,
        "name": f"{EpisodeWriter.__module__}.{EpisodeWriter.__qualname__}",
    }


def _valid_name(name: str) -> str:
    """The name; ValueError if it is not usable as a file name or would be read as another file."""
    bad = not name or "/" in name or "\0" in name or name.startswith(".")
    if bad or name.endswith(".frames") or len(name.encode()) > 200:
        raise ValueError(
            f"{name!r} cannot name a signal; expected 1 to 200 bytes without '/', not starting "
            "with '.', not ending in '.frames'"
        )
    return name


def _valid_uid(uid: str) -> str:
    """The uid; ValueError if a reader would refuse it or take it for one made from files."""
    if not uid.isprintable() or not 1 <= len(uid) <= MAX_UID or uid.startswith(UNNAMED):
        raise ValueError(
            f"{uid[:MAX_UID]!r} cannot be the uid of an episode; expected 1 to {MAX_UID} printable "
            f"characters, not beginning with {UNNAMED!r}"
        )
    return uid


class EpisodeWriter:
    """Records one episode; a context manager.

    Leaving the ``with`` block publishes the episode; an exception aborts and removes it. ``append``
    and ``set_static`` raise ValueError for invalid input and then store nothing, so a caller that
    handles the error can go on recording.
    """

    def __init__(
        self, dataset: "DatasetWriter", uid: str | None = None, created_ts_ns: int | None = None
    ) -> None:
        created = time.time_ns() if created_ts_ns is None else int(created_ts_ns)
        if not 0 <= created < 2**63:
            raise ValueError(f"created_ts_ns is {created}; expected ns since 1970")
        identity = {
            "uid": uuid.uuid4().hex if uid is None else _valid_uid(uid),
            "created_ts_ns": created,
        }
        self._dataset = dataset
        self._directory = dataset.root / f"{STAGING}{os.getpid()}-{uuid.uuid4().hex}"
        self._directory.mkdir()
        (self._directory / UNFINISHED).write_text("unfinished", encoding="utf-8")
        self._sinks: dict[str, Sink] = {}
        self._static: dict[str, Any] = {}
        self._state = "recording"
        self._path: Path | None = None
        self._meta: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            **identity,
            "writer": _writer_info(),
        }

    @property
    def path(self) -> Path:
        """The episode's directory: the staging directory, after publication the final one."""
        return self._path or self._directory

    def append(
        self, name: str, value: Any, ts_ns: int, extra_ts: dict[str, int] | None = None
    ) -> None:
        """Add a sample to a signal; the first sample creates it.

        Args:
            name: name of the signal.
            value: a uint8 image ``(height, width, 3)``, or a number, vector or text, of the shape
                and dtype of the first sample.
            ts_ns: time in ns, after that of the signal's last sample.
            extra_ts: further time lines (name to ns), the same names at every sample.
        """
        self._require("recording")
        if name in self._static:
            raise ValueError(f"{name!r} is a static value of this episode; rename the signal")
        sink = self._sinks.get(name)
        if sink is None:
            kind = VideoSink if is_image(value) else NumericSink
            sink = kind(self._directory, _valid_name(name))
        sink.append(value, int(ts_ns), extra_ts or {})
        self._sinks[name] = sink

    def set_static(self, name: str, value: Any) -> None:
        """Store a value that holds for the whole episode; ValueError for None or a second value."""
        self._require("recording")
        if name in self._sinks:
            raise ValueError(f"{name!r} is a signal of this episode; rename the static value")
        if name in self._static:
            raise ValueError(f"static {name!r} is already set, to {self._static[name]!r}")
        self._static[name] = statics.checked(value, name)

    def abort(self) -> None:
        """Discard the recording; no effect after it is staged, published or aborted."""
        if self._state != "recording":
            return
        self._state = "aborted"
        try:
            for sink in self._sinks.values():
                sink.discard()
        finally:
            shutil.rmtree(self._directory, ignore_errors=True)

    def stage(self) -> Path:
        """Finish the files without publishing; ``DatasetWriter.publish`` takes the result.

        For parallel recorders: each stages, one process publishes in its own order. A write error,
        such as a full disk, aborts the episode and is raised.
        """
        self._require("recording")
        try:
            for sink in self._sinks.values():
                sink.close()
            statics.dump(self._static, self._directory / STATIC)
            statics.dump(self._described(), self._directory / META)
            files = [file for sink in self._sinks.values() for file in sink.files]
            for file in [*files, self._directory / STATIC, self._directory]:
                sync(file)
        except BaseException:
            self.abort()
            raise
        self._state = "staged"
        return self._directory

    def _described(self) -> dict[str, Any]:
        meta = dict(self._meta)
        starts = [sink.start_ts for sink in self._sinks.values() if sink.start_ts is not None]
        lasts = [sink.last_ts for sink in self._sinks.values() if sink.last_ts is not None]
        if starts:
            meta["duration_ns"] = max(lasts) - max(starts)
        return meta

    def publish(self) -> Path:
        """Finish the files and move the episode into the dataset under the next free number."""
        self._path = self._dataset.publish(self.stage())
        self._state = "published"
        return self._path

    def _require(self, state: str) -> None:
        if self._state != state:
            raise EpisodeError(f"the episode {self.path} is {self._state}, expected {state}")

    def __enter__(self) -> Self:
        """The writer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Publish, or abort after an exception; no effect if already staged or aborted."""
        if kind is not None:
            self.abort()
        elif self._state == "recording":
            self.publish()


class DatasetWriter:
    """Adds episodes to the dataset at ``root``, which is created if missing.

    Any number of writers, in any processes on one file system, may share a root. DatasetError if
    ``root`` cannot be created as a directory.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser().absolute()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise DatasetError(
                f"cannot record into {self.root}: a file is in the way; give another directory"
            ) from error

    def new_episode(
        self, *, uid: str | None = None, created_ts_ns: int | None = None
    ) -> EpisodeWriter:
        """Start recording an episode; it has no number until it is published.

        Args:
            uid: identity of the recording, when an existing one is copied or migrated, so that
                edit logs and provenance still refer to it; a fresh one by default. Whether the
                dataset already has an episode of this uid is the caller's concern.
            created_ts_ns: time of the original recording in ns since 1970; now by default.

        Raises:
            ValueError: ``uid`` is empty, unprintable or too long, or the time negative.
        """
        return EpisodeWriter(self, uid, created_ts_ns)

    def publish(self, staged: Path) -> Path:
        """Give a staged episode the next free number and return its directory.

        DatasetError when ``staged`` is not an episode staged in this root.
        """
        if staged.parent.resolve() != self.root.resolve() or not (staged / META).is_file():
            raise DatasetError(
                f"cannot publish {staged}: not a staged episode of {self.root}; publish what "
                "EpisodeWriter.stage() of a writer on the same root returned"
            )
        meta = statics.load(staged / META)
        number = self._next_number()
        (staged / UNFINISHED).unlink(missing_ok=True)
        while True:
            block = self.root / f"{number // BLOCK * BLOCK:012d}"
            block.mkdir(exist_ok=True)
            target = block / f"{number:012d}"
            statics.dump({**meta, "path": str(target.resolve())}, staged / META)
            for changed in (staged / META, staged):
                sync(changed)
            if _rename_new(staged, target):
                for changed in (block, self.root):
                    sync(changed)
                return target
            number += 1

    def _next_number(self) -> int:
        """One more than the highest number in use, finished or not."""
        for block in reversed(numbered(self.root)):
            episodes = numbered(block)
            if episodes:
                return int(episodes[-1].name) + 1
        return 0


def _rename_new(source: Path, target: Path) -> bool:
    """Rename a directory, or return False if the name is taken; atomic against other writers.

    ``rename`` fails for a target directory with entries, but replaces an empty one, which other
    software may have made, so that case is checked first.
    """
    if target.exists():
        return False
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            return False
        raise
    return True
