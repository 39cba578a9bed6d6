"""Recorded episode: its signals and metadata by file name, read lazily, local or in S3."""

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, override

from pydantic import Field

from foundation.documents import Document
from positronic.dataset import statics
from positronic.dataset.episode import Episode
from positronic.dataset.faults import broken, reading
from positronic.dataset.signal import Signal

UNFINISHED = ".unfinished"
STATIC = "static.json"
META = "meta.json"
BLOCK = 1000
INDEX_SUFFIX = ".frames.parquet"
MAX_UID = 200
UNNAMED = "files-"  # prefix of the uid of an episode without a recorded one


type _Natural = Annotated[int, Field(ge=0, lt=2**63)]


class Meta(Document):
    """The fields of ``meta.json`` that are checked; others are passed through."""

    uid: Annotated[str, Field(max_length=MAX_UID)] | None = None
    created_ts_ns: _Natural | None = None
    duration_ns: _Natural | None = None
    writer: dict[str, Any] | None = None


def is_number(name: str) -> bool:
    """Return whether a directory name is that of a block or an episode."""
    return len(name) == 12 and name.isascii() and name.isdigit()


class RecordedEpisode(Episode):
    """An episode made of its file names. Files are read, or fetched, on demand.

    A subclass provides access to the files. EpisodeError if it is still being written.
    """

    def __init__(self, path: Path | str, files: frozenset[str]) -> None:
        self.path = path
        self._files = files
        if UNFINISHED in files:
            why = "it is still being written, or its recorder was killed"
            raise broken(path, "not finished", why, "wait for the recorder, or delete it")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    @abstractmethod
    def _file(self, name: str) -> Path:
        """Local path of one of its files, fetched if necessary."""

    @abstractmethod
    def _sizes(self) -> dict[str, int]:
        """Bytes of each of its files."""

    @abstractmethod
    def _numeric(self, name: str) -> Signal:
        """The signal of a parquet file."""

    @abstractmethod
    def _video(self, name: str) -> Signal:
        """The signal of a video and its index."""

    @cached_property
    @override
    def signals(self) -> Mapping[str, Signal]:
        found: dict[str, Signal] = {}
        for file in self._files:
            if file.endswith((".mp4", INDEX_SUFFIX)):
                name = file.removesuffix(".mp4").removesuffix(INDEX_SUFFIX)
                found[name] = self._video(name)
        for file in self._files:
            name = file.removesuffix(".parquet")
            if name != file and name not in found and not file.endswith(INDEX_SUFFIX):
                found[name] = self._numeric(name)
        return dict(sorted(found.items()))

    def _json(self, file: str) -> dict[str, Any]:
        if file not in self._files:
            return {}
        path = self._file(file)
        with reading(self.path, file):
            return statics.load(path)

    @cached_property
    @override
    def static(self) -> Mapping[str, Any]:
        return self._json(STATIC)

    @cached_property
    def _recorded(self) -> dict[str, Any]:
        values = self._json(META)
        with reading(self.path, META):
            statics.READER.validate(values, Meta, "the file")
        return values

    @property
    def meta(self) -> dict[str, Any]:
        """Content of ``meta.json``, with the present ``path`` and the size ``size_mb`` (MiB)."""
        meta = dict(self._recorded)
        meta.pop("duration_ns", None)
        meta["path"] = str(self.path)
        meta["size_mb"] = sum(self._sizes().values()) / 2**20
        return meta

    @property
    @override
    def uid(self) -> str:
        recorded = self._recorded
        if recorded.get("uid") or recorded.get("created_ts_ns"):
            return str(recorded.get("uid") or f"ts-{recorded['created_ts_ns']}")
        # Without a recorded uid, file names and sizes stand in. Two recordings of the same sizes
        # get the same uid; callers to whom that matters check for the prefix.
        listed = sorted((name, size) for name, size in self._sizes().items())
        return f"{UNNAMED}{hashlib.sha256(repr(listed).encode()).hexdigest()[:32]}"

    @property
    def duration_ns(self) -> int:
        """``last_ts - start_ts`` in ns, as the recorder wrote it, else from the signals."""
        recorded = self._recorded.get("duration_ns")
        return super().duration_ns if recorded is None else int(recorded)
