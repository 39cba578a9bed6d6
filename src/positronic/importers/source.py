"""Recordings of others as an importer reads them: episodes, streams and samples in time order."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

__all__ = ["Assumption", "Packet", "Recording", "Sample", "Source", "Stream"]


@dataclass(frozen=True)
class Stream:
    """One series of samples of a source: a topic, an array of a file, a feature.

    Attributes:
        name: as the source spells it; a part of a message is ``/topic.field``.
        kind: numbers (a scalar or vector), image (uint8 RGB, or packets of a video), or text.
        shape: of one sample: ``()``, ``(n,)`` or ``(height, width, 3)``.
        dtype: numpy's name of the element type; ``h264``, ``av1``, ... for packets.
        count: number of samples in the first episode, if it is known without reading them all.
        rate_hz: median rate in the first episode, if known.
        schema: the source's own type, such as ``sensor_msgs/msg/JointState``.
        names: of the elements, if the source has them.
    """

    name: str
    kind: Literal["numbers", "image", "text"]
    shape: tuple[int, ...]
    dtype: str
    count: int | None = None
    rate_hz: float | None = None
    schema: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Packet:
    """One encoded frame of a video, copied as it is: in decoding order, without B-frames.

    Attributes:
        codec: PyAV's name of the codec, such as ``h264``.
        data: the packet, as the container held it.
        keyframe: whether decoding may begin here.
        size: ``(height, width)`` of the decoded picture.
    """

    codec: str
    data: bytes
    keyframe: bool
    size: tuple[int, int]


@dataclass(frozen=True)
class Sample:
    """One value of a stream, in the source's own unit and convention.

    ``ts_ns`` is the time by which the episode is ordered; ``extra_ts`` are further time lines, such
    as the log's beside a header's stamp.
    """

    stream: str
    ts_ns: int
    value: NDArray[Any] | Packet | float | int | bool | str
    extra_ts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Recording:
    """One episode of a source.

    Attributes:
        id: its name within the source, the same each time it is opened.
        statics: values that hold for the whole episode, such as the task and the source's own
            attributes.
        created_ts_ns: time of the recording, or of the source's file.
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


class Source(Protocol):
    """An opened source. Nothing of it is trusted; it is read within bounds.

    Raises:
        DatasetError: the source as a whole is not what it should be.
        EpisodeError: one episode is not; the others can still be imported.
    """

    format: str
    place: str

    def recordings(self) -> Sequence[Recording]:
        """The episodes, in their order."""
        ...

    def streams(self) -> Sequence[Stream]:
        """The streams that occur in any episode."""
        ...

    def samples(self, recording: Recording, streams: Sequence[str]) -> Iterator[Sample]:
        """The samples of the named streams; the times of each stream strictly increase.

        At most one decoded frame a stream is in memory at a time.
        """
        ...
