"""Signal names, grip convention and pose frame of recordings that other versions made.

**Names.** Public Positronic recorded ``robot_commands.pose`` until June 2026 and
``robot_command.pose`` since. If an episode has exactly one of the two, both names refer to it;
if it has both, each name refers to its own signal.

**Grip.** Recordings of this project state their convention: the static value ``grip_convention``
is ``{"open": 1.0, "closed": 0.0}``. For those of public Positronic it follows from the release that
wrote them: in MuJoCo 1 is open up to release 0.2.1, and from 0.3.0 on 0 is open everywhere (read in
the sources of releases 0.2.1 to 0.4.1). It is unknown for a recorder run from a git checkout, which
has a version but is not a release; for a copy that a later release made of an older recording; and
for real grippers before 0.3.0, whose convention depended on the model.

**Poses.** Poses of another frame than the link ``end_effector`` are transformed to it, if the
recording states their frame: see :mod:`positronic.dataset.tool_point`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, override

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from foundation.documents import Document, Reader
from foundation.text import printable
from positronic.dataset import tool_point
from positronic.dataset.episode import Episode, EpisodeView
from positronic.dataset.signal import Signal
from positronic.dataset.transforms import map_values
from positronic.errors import EpisodeError

__all__ = ["OPEN_0", "OPEN_1", "Convention", "Declared", "adapted", "grip_convention"]

CONVENTION = "grip_convention"
GRIPS = ("grip", "target_grip")
MUJOCO = "simulation.mujoco_model_path"
RENAMED = ("robot_commands.", "robot_command.")  # until June 2026, and since

Convention = Mapping[str, float]
"""What a grip counts when the gripper is ``open`` and when it is ``closed``."""

FLIPPED_NS = (
    1_783_468_800 * 10**9
)  # 8 July 2026, UTC: no recording with the new convention is older

OPEN_1: Convention = {"open": 1.0, "closed": 0.0}
"""The grip is 1 when open, as this project records it."""

OPEN_0: Convention = {"open": 0.0, "closed": 1.0}
"""The grip is 0 when open."""

_RELEASE = re.compile(r"([0-9]{1,6})\.([0-9]{1,6})\.([0-9]{1,6})")
_READER = Reader(
    error=EpisodeError, mend=f"expected for example {dict(OPEN_1)}: correct it with an edit log"
)
_Bounded = Annotated[float, Field(ge=-1e6, le=1e6)]


class _Convention(Document):
    open: _Bounded
    closed: _Bounded


def grip_convention(episode: Episode) -> Convention | None:
    """The grip convention that the recording states or implies, or None if it is unknown.

    EpisodeError if the static value is invalid.
    """
    stated = episode.static.get(CONVENTION)
    if stated is None:
        return _by_release(episode)
    said = _READER.validate(stated, _Convention, f"its static {CONVENTION!r}")
    if said.open == said.closed:
        raise _READER.refusal(f"its static {CONVENTION!r} is {printable(stated)}")
    return {"open": said.open, "closed": said.closed}


def _by_release(episode: Episode) -> Convention | None:
    writer = episode.meta.get("writer")
    if not isinstance(writer, dict) or "git" in writer:
        return None
    if not str(writer.get("name", "")).startswith("positronic.dataset.local_dataset."):
        return None  # another recorder, with its own version numbers
    release = _RELEASE.fullmatch(str(writer.get("version", "")))
    if release is None:
        return None
    version = tuple(int(part) for part in release.groups())
    if version >= (0, 3, 0):
        return OPEN_0 if (episode.meta.get("created_ts_ns") or 0) >= FLIPPED_NS else None
    return OPEN_1 if MUJOCO in episode.static else None


def adapted(episode: Episode, names: Iterable[str], grip: Convention | None) -> Episode:
    """The episode in the conventions that a reader of the signals ``names`` expects.

    Signals are found by their other name too, poses are in the frame that policies get, and the
    grip is converted to the convention ``grip``. A signal whose convention or frame is unknown is
    left as it is. Returns the episode itself if nothing changes.

    Raises:
        EpisodeError: A convention stated in the recording is invalid.
    """
    found = episode.signals
    changed: dict[str, Signal] = {}
    statics: dict[str, Any] = {}
    names = list(names)
    either = {*names, *filter(None, map(other_name, names))}
    transforms, frames = tool_point.frame_transforms(episode, either & found.keys())
    if transforms:
        changed |= {name: map_values(found[name], t) for name, t in transforms.items()}
        statics[tool_point.FRAMES] = frames
    stated = grip_convention(episode) if grip is not None else None
    if stated is not None and grip is not None and stated != grip:
        convert = _GripConversion(stated["open"], stated["closed"], grip["open"], grip["closed"])
        changed |= {name: map_values(found[name], convert) for name in found if is_grip(name)}
        statics[CONVENTION] = dict(grip)
    present = {**found, **changed}
    aliases = {
        name: present[other]
        for name in names
        if name not in present
        for other in (other_name(name),)
        if other is not None and other in present
    }
    if not (changed or aliases or statics):
        return episode
    return _Adapted(episode, changed | aliases, statics)


def is_grip(name: str) -> bool:
    """Return whether a signal follows a grip convention, also as one arm's: ``left.grip``."""
    return name.rpartition(".")[2] in GRIPS


def other_name(name: str) -> str | None:
    """The signal's name in other versions, or None if it is the same."""
    for ours, theirs in (RENAMED, RENAMED[::-1]):
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return None


class _Adapted(EpisodeView):
    def __init__(
        self, source: Episode, signals: Mapping[str, Signal], statics: Mapping[str, Any]
    ) -> None:
        super().__init__(source)
        self._signals = signals
        self._statics = statics

    @cached_property
    @override
    def signals(self) -> Mapping[str, Signal]:
        return {**self.source.signals, **self._signals}

    @cached_property
    @override
    def static(self) -> Mapping[str, Any]:
        return {**self.source.static, **self._statics}

    @override
    def prefetch(self, names: Iterable[str]) -> None:
        present = self.source.signals
        found = (name if name in present else other_name(name) for name in names)
        self.source.prefetch(name for name in found if name is not None)


@dataclass(frozen=True)
class _GripConversion:
    """Convert grip values between conventions; exactly ``1 - v`` between 0-open and 1-open."""

    opened: float
    closed: float
    new_opened: float
    new_closed: float

    def __call__(self, values: NDArray[Any]) -> NDArray[Any]:
        scale = (self.new_closed - self.new_opened) / (self.closed - self.opened)
        return np.asarray(self.new_opened + (values - self.opened) * scale)


@dataclass(frozen=True)
class Declared:
    """A transform that declares the grip convention of recordings that do not state it.

    EpisodeError for a recording that states another one.
    """

    convention: Convention

    def __call__(self, episode: Episode) -> Mapping[str, Any]:
        """The static value to add."""
        stated = grip_convention(episode)
        if stated is not None and stated != self.convention:
            raise EpisodeError(
                f"the recording states that its grip is {stated['open']:g} when open; "
                "leave out --grip_open"
            )
        return {CONVENTION: dict(self.convention)}
