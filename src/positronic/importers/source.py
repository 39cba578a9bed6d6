"""Recordings of others as an importer reads them: episodes, streams and samples."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

__all__ = ["Assumption", "Recording", "Sample", "Source", "Stream"]


@dataclass(frozen=True)
class Stream:
    """One series of samples of a source.

    Attributes:
        name: the signal that it becomes, unless the user names another.
        place: where it is in the source, as the source spells it.
        kind: numbers (a scalar or vector) or image (uint8 RGB).
        shape: of one sample: ``()``, ``(n,)`` or ``(height, width, 3)``; of the first episode.
        dtype: numpy's name of the element type.
        count: number of samples in the first episode.
    """

    name: str
    place: str
    kind: Literal["numbers", "image"]
    shape: tuple[int, ...]
    dtype: str
    count: int


@dataclass(frozen=True)
class Sample:
    """One value of a stream at a time in ns, in the source's own unit and convention."""

    stream: str
    ts_ns: int
    value: NDArray[Any] | float | int


@dataclass(frozen=True)
class Recording:
    """One episode of a source.

    Attributes:
        id: its name within the source, the same each time that it is opened.
        statics: values that hold for the whole episode, such as the source's own attributes.
        created_ts_ns: time of the source's file, in ns since 1970.
    """

    id: str
    statics: Mapping[str, Any] = field(default_factory=dict)
    created_ts_ns: int | None = None


@dataclass(frozen=True)
class Assumption:
    """Something that the source does not say and the importer takes as given.

    It is printed, and recorded in every episode as the static ``import.assumptions``.
    """

    about: str
    taken: str
    because: str

    def __str__(self) -> str:
        return f"{self.about}: {self.taken}, {self.because}"


class Source(Protocol):
    """An opened source. Nothing of it is trusted; it is read within bounds.

    Raises:
        DatasetError: the source as a whole is not what it should be.
        EpisodeError: one episode is not; the others can still be imported.
    """

    @property
    def format(self) -> str:
        """Name of the format."""

    @property
    def fps(self) -> float:
        """Samples per second of its streams."""

    @property
    def assumptions(self) -> Sequence[Assumption]:
        """What was taken as given."""

    def recordings(self) -> Sequence[Recording]:
        """The episodes, in their order."""

    def streams(self) -> Sequence[Stream]:
        """The streams of the first episode that can be read."""

    def samples(self, recording: Recording) -> Iterator[Sample]:
        """The samples of an episode; the times of each stream strictly increase.

        At most one frame a camera is in memory at a time.
        """
