"""Encode one raw episode with the codec: the task of a conversion worker.

Frames pass from the decoder through the codec to the encoder one at a time, so memory does not grow
with the episode. Neither torch nor LeRobot is imported: a worker starts in a second.
"""

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.text import printable
from foundation.video import Encoder
from positronic.codec import Codec
from positronic.dataset import Episode
from positronic.dataset.conventions import Convention, adapted, grip_convention, is_grip
from positronic.errors import EpisodeError
from positronic.vendors.lerobot.conversion.resample import sample
from positronic.vendors.lerobot.conversion.video import VideoWriter
from positronic.vendors.lerobot.dataset import statistics

# The static value with the outcome of rollouts and demonstrations.
SUCCESS = "eval.success"
# Maximum distance of a grip from the middle of its range, in widths of the range.
_GRIP_LEEWAY = 1.0


@dataclass(frozen=True)
class Recipe:
    """Encoding settings of a conversion.

    Attributes:
        codec: encodes signals to features.
        fps: rows per second.
        encoder: video encoder; None stores PNG images in the table instead.
        task: task of every episode; None uses each episode's static ``task``.
    """

    codec: Codec
    fps: int
    encoder: Encoder | None
    task: str | None = None


@dataclass
class EncodedEpisode:
    """One encoded episode, as input of the dataset writer.

    Attributes:
        source: path of the recording, or another identifier.
        uid: unique id of the recording.
        task: the task in words.
        robot_type: the static value of that name, if present.
        length: number of rows.
        grip_stated: whether the recording states its grip convention, if the codec reads a grip.
        failed: whether its static ``eval.success`` is False.
        columns: numeric features ``(T, n)`` by name; PNG files as bytes, one per row, for images.
        videos: mp4 files by feature name.
        stats: statistics by feature name.
        pixels: histogram of the values of each channel, by feature name.
    """

    source: str
    uid: str
    task: str
    robot_type: str | None
    length: int
    grip_stated: bool
    failed: bool
    columns: dict[str, Any] = field(default_factory=dict)
    videos: dict[str, Path] = field(default_factory=dict)
    stats: dict[str, statistics.Statistics] = field(default_factory=dict)
    pixels: dict[str, statistics.PixelCounts] = field(default_factory=dict)

    @property
    def provenance(self) -> dict[str, Any]:
        """Record of the episode for the provenance, as JSON."""
        found: dict[str, Any] = {"source": self.source, "uid": self.uid, "frames": self.length}
        if not self.grip_stated:
            found["grip_stated"] = False
        if self.failed:
            found["failed"] = True
        return found


def read_by(codec: Codec) -> tuple[str, ...]:
    """Return the names of the signals that a codec reads."""
    return (*codec.inputs, *codec.action_inputs)


def source_of(episode: Episode) -> str:
    """The path of a recording, or its uid; always valid Unicode."""
    source = str(getattr(episode, "path", None) or episode.meta.get("path") or episode.uid)
    # File names may be arbitrary bytes, which JSON and parquet cannot store.
    return source.encode("utf-8", "backslashreplace").decode()


def encode_episode(episode: Episode, recipe: Recipe, scratch: Path) -> EncodedEpisode:
    """Sample and encode ``episode``; video files are written to the directory ``scratch``.

    Raises:
        CodecError: a value does not fit the codec.
        EpisodeError: a signal is missing or damaged, or a static value is invalid.
    """
    codec = recipe.codec
    names = read_by(codec)
    grip = codec.meta.get("grip")
    grip_stated = grip is None or grip_convention(episode) is not None
    episode = adapted(episode, names, grip)
    episode.prefetch(names)
    columns = sample(episode, names, recipe.fps)
    if grip is not None and grip_stated:
        _require_within(columns, grip)
    task = recipe.task if recipe.task is not None else episode.static.get("task", "")
    if not isinstance(task, str) or not _is_unicode(task):
        raise EpisodeError(
            f"its static 'task' is {printable(repr(task))}, expected text; give --task=..."
        )
    actions = codec.encode_action_rows(columns)
    robot_type = episode.static.get("robot_type")
    if robot_type is not None and not _is_unicode(str(robot_type)):
        raise EpisodeError(
            f"its static 'robot_type' is {printable(repr(robot_type))}, expected text; correct it"
            " with an edit log"
        )
    encoded = EncodedEpisode(
        source=source_of(episode),
        uid=episode.uid,
        task=task,
        robot_type=None if robot_type is None else str(robot_type),
        length=len(actions),
        grip_stated=grip_stated,
        failed=episode.static.get(SUCCESS) is False,
    )
    for name, values in {**codec.encode_rows(columns), "action": actions}.items():
        if codec.features[name]["dtype"] != "video":
            encoded.columns[name] = _finite(name, np.asarray(values))
            encoded.stats[name] = statistics.of_vectors(encoded.columns[name])
            continue
        counted = statistics.ImageStatistics()
        if recipe.encoder is None:
            encoded.columns[name] = _png_files(values, counted)
        else:
            scratch.mkdir(parents=True, exist_ok=True)
            path = scratch / f"{name}.mp4"
            _video(values, path, recipe, counted)
            if counted.frames != len(actions):
                raise EpisodeError(
                    f"has {counted.frames} frames of {name}, expected {len(actions)}"
                )
            encoded.videos[name] = path
        encoded.stats[name], encoded.pixels[name] = counted.result(), counted.counts
    return encoded


def _require_within(columns: Mapping[str, Any], grip: Convention) -> None:
    """Reject a grip far out of its recording's convention, such as values in 0..255 or in mm.

    Values slightly out of range are allowed, as a policy may have commanded them.
    """
    middle = (grip["open"] + grip["closed"]) / 2
    most = _GRIP_LEEWAY * abs(grip["open"] - grip["closed"])
    for name in columns:
        if is_grip(name):
            off = np.abs(np.asarray(columns[name], dtype=np.float64) - middle)
            if off.max(initial=0) > most:
                value = float(np.ravel(columns[name])[int(np.argmax(off))])
                raise EpisodeError(
                    f"its {name} is {value:.4g} (in the codec's convention), but its recording "
                    f"states a range of {grip['open']:g} when open to {grip['closed']:g} when "
                    "closed; correct its grip_convention with an edit log"
                )


def _is_unicode(text: str) -> bool:
    """Return whether the text can be stored: it has no lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _finite(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """Check encoded values, which may have overflowed the feature's dtype."""
    wrong = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if wrong.any():
        raise EpisodeError(
            f"its {name} is out of the range of {values.dtype} in row {int(wrong.argmax())},"
            f" in {int(wrong.sum())} of {len(values)} rows"
        )
    return values


def _video(
    images: Iterable[NDArray[np.uint8]],
    path: Path,
    recipe: Recipe,
    counted: statistics.ImageStatistics,
) -> None:
    assert recipe.encoder is not None
    with VideoWriter(path, recipe.fps, recipe.encoder) as video:
        for image in images:
            video.add(image)
            counted.add(image)


def _png_files(
    images: Iterable[NDArray[np.uint8]], counted: statistics.ImageStatistics
) -> list[bytes]:
    from PIL import Image

    files = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, format="PNG", compress_level=1)
        files.append(file.getvalue())
        counted.add(image)
    return files
