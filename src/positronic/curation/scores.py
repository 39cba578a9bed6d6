"""Quality measures of the episodes of a dataset, each read once."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from foundation.cache import cache_root
from foundation.documents import Document, InvalidDocument, Reader
from foundation.files import replace_text
from foundation.progress import bar
from foundation.worker_pool import worker_pool
from positronic.curation import motion, pictures
from positronic.dataset import Dataset, Episode
from positronic.dataset.signal import Signal
from positronic.errors import EpisodeError

# Commands, and what measures their effect; either may stand behind the name of an arm.
PAIRS = (
    ("robot_commands.pose", "robot_state.ee_pose"),
    ("robot_command.pose", "robot_state.ee_pose"),
    ("robot_commands.joints", "robot_state.q"),
    ("robot_command.joints", "robot_state.q"),
    ("target_grip", "grip"),
)
GRIP = "target_grip"
# Longer vectors, such as a simulator's whole state, are not looked at.
LONGEST = 64
# Points of the path by which episodes are compared with one another.
POINTS = 24
# Changes whenever a measure does, so that cached ones are computed again.
VERSION = 1

_READER = Reader(error=InvalidDocument, size=1 << 20, allow_nan=True)
type _Numbers = dict[str, list[float]]


@dataclass(frozen=True)
class Scores:
    """Measures of one episode.

    Attributes:
        source: path or URL of the recording.
        uid: its uid.
        values: measures by name, such as ``lag.target_grip`` or ``frozen.image.wrist``.
        ranges: least and largest value of each element of the numeric signals, one after the other.
        starts: first value of each numeric signal.
        ends: last value of each.
        views: what each camera sees, see `positronic.curation.pictures`.
        path: measured positions at `POINTS` moments, one after the other.
        failed: whether ``eval.success`` is False.
        error: why it could not be read.
    """

    source: str
    uid: str
    values: dict[str, float] = field(default_factory=dict)
    ranges: _Numbers = field(default_factory=dict)
    starts: _Numbers = field(default_factory=dict)
    ends: _Numbers = field(default_factory=dict)
    views: _Numbers = field(default_factory=dict)
    path: list[float] = field(default_factory=list)
    failed: bool = False
    error: str | None = None


class _Stored(Document):
    """A cached `Scores`, without what is not of the recording itself."""

    values: dict[str, float]
    ranges: _Numbers
    starts: _Numbers
    ends: _Numbers
    views: _Numbers
    path: Annotated[list[float], Field(max_length=POINTS * LONGEST)]


def score_dataset(dataset: Dataset, workers: int = 0) -> list[Scores]:
    """Measure every episode; those measured before come from the cache.

    An episode that cannot be read is listed with its error.

    Args:
        dataset: raw episodes.
        workers: processes; 0 measures in this one.
    """
    dataset.prefetch(range(len(dataset)))
    with bar(total=len(dataset), desc="measuring", unit="ep") as progress:
        found: list[Scores] = []
        for scores in _each(dataset, workers):
            found.append(scores)
            progress.update()
    return found


def _each(dataset: Dataset, workers: int) -> Iterator[Scores]:
    if workers == 0:
        for index in range(len(dataset)):
            yield score_at(dataset, index)
        return
    with worker_pool(workers, _initialise, dataset) as pool:
        yield from pool.map(_in_worker, range(len(dataset)))


_dataset: Dataset | None = None


def _initialise(dataset: Dataset) -> None:
    global _dataset
    _dataset = dataset


def _in_worker(index: int) -> Scores:
    assert _dataset is not None
    return score_at(_dataset, index)


def score_at(dataset: Dataset, index: int) -> Scores:
    """Measure the episode at a position, or take it from the cache."""
    source = f"episode {index}"
    try:
        episode = dataset[index]
        source = str(episode.meta.get("path", source))
        failed = episode.static.get("eval.success") is False
        file = _cached(episode, source)
        try:
            stored = _READER.load_json(file, _Stored).model_dump()
        except (OSError, InvalidDocument):
            stored = _measured(episode)
            file.parent.mkdir(parents=True, exist_ok=True)
            replace_text(file, json.dumps(stored))
        return Scores(source, episode.uid, **stored, failed=failed)
    except EpisodeError as error:
        return Scores(source, "", error=str(error))


def as_json(scores: Scores) -> dict[str, Any]:
    """A document of one episode's measures; NaN becomes None."""
    values = {k: None if math.isnan(v) else round(v, 6) for k, v in scores.values.items()}
    document = {k: v for k, v in asdict(scores).items() if k in ("source", "uid", "failed")}
    return {**document, "error": scores.error, "values": values}


def _cached(episode: Episode, source: str) -> Path:
    what = f"{VERSION}\n{source}\n{episode.uid}\n{episode.meta.get('size_mb')}"
    name = hashlib.sha256(what.encode("utf-8", "backslashreplace")).hexdigest()
    return cache_root() / "positronic/quality" / name[:2] / f"{name}.json"


def _measured(episode: Episode) -> dict[str, Any]:
    signals = {name: signal for name, signal in episode.signals.items() if len(signal)}
    numeric = {n: s for n, s in signals.items() if _is_numeric(s)}
    cameras = {n: s for n, s in signals.items() if len(s.shape) == 3}
    start, stop = _common(signals)
    series = {n: motion.resampled(s, start, stop) for n, s in numeric.items()}
    values = {"duration_s": (stop - start) / 1e9}
    values |= {f"gap.{n}": motion.gap(s.timestamps()) for n, s in {**numeric, **cameras}.items()}
    positions = _positions(series)
    for name, position in positions.items():
        values |= {
            f"idle.{name}": motion.idle_share(position),
            f"path.{name}": motion.path_length(position),
            f"speed.{name}": motion.fast_speed(position),
            f"jerk.{name}": motion.jerk(position),
        }
    values |= _commands(series)
    views: _Numbers = {}
    for name, signal in cameras.items():
        camera = pictures.measure(iter(signal.values()))
        if camera is not None:
            values |= {f"frozen.{name}": camera.frozen, f"black.{name}": camera.black}
            values[f"sharpness.{name}"] = camera.sharpness
            views[name] = camera.view.tolist()
    path = next(iter(positions.values()), np.zeros((1, 1)))
    chosen = path[np.linspace(0, len(path) - 1, POINTS).round().astype(int)]
    return {
        "values": {name: float(value) for name, value in values.items()},
        "ranges": {
            n: np.concatenate([s.min(axis=0), s.max(axis=0)]).tolist() for n, s in series.items()
        },
        "starts": {n: s[0].tolist() for n, s in series.items()},
        "ends": {n: s[-1].tolist() for n, s in series.items()},
        "views": views,
        "path": chosen.ravel().tolist(),
    }


def _is_numeric(signal: Signal) -> bool:
    size = math.prod(signal.shape)
    return len(signal.shape) < 2 and signal.dtype.kind in "fiu" and size <= LONGEST


def _common(signals: Mapping[str, Signal]) -> tuple[int, int]:
    """The time in which every signal has a value; one that ended earlier keeps its last."""
    if not signals:
        return 0, 0
    start = max(signal.start_ts for signal in signals.values())
    return start, max(start, *(signal.last_ts for signal in signals.values()))


def _positions(series: Mapping[str, motion.Series]) -> dict[str, motion.Series]:
    """Measured positions by arm: of the end effector, or else of the joints."""
    found: dict[str, motion.Series] = {}
    for suffix, size in (("robot_state.ee_pose", 3), ("robot_state.q", LONGEST)):
        for name, values in series.items():
            arm = name.removesuffix(suffix)
            taken = any(known.startswith(arm) for known in found)
            if name.endswith(suffix) and not (found and taken):
                found[name] = values[:, :size]
    return found


def _commands(series: Mapping[str, motion.Series]) -> dict[str, float]:
    """Measures of commands against their effect."""
    values: dict[str, float] = {}
    for name, command in series.items():
        for wanted, effect in PAIRS:
            measured = series.get(name.removesuffix(wanted) + effect)
            if not name.endswith(wanted) or measured is None or measured.shape != command.shape:
                continue
            pose = command.shape[1] == 7 and name.endswith("pose")
            ours, theirs = (s[:, :3] if pose else s for s in (command, measured))
            values[f"saturation.{name}"] = motion.saturation(ours)
            if wanted == GRIP:
                values[f"agreement.{name}"] = motion.agreement(ours, theirs)
                continue
            lag_s = motion.lag(ours, theirs)
            values[f"lag.{name}"] = lag_s
            values[f"offset.{name}"] = motion.offset(ours, theirs, lag_s)
            if pose:
                values[f"turn.{name}"] = motion.turn(command[:, 3:], measured[:, 3:], lag_s)
    return values
