"""End-effector frame of recorded poses, and their transform to the link ``end_effector``.

Public Positronic up to 0.3 reported the pose of the link ``end_effector`` of the robot's model.
Since 0.4 its recordings state a frame for each pose signal, in the static ``ee_frames``: a link of
the model, which is the static ``urdf``, and an offset from it. With a server that does not state a
frame, such as this one, its robots report ``end_effector`` as before, or the stated link if the
model has no ``end_effector``. The poses of recordings are transformed to that frame, so that a
policy is trained on the poses it gets at run time. Read in the sources of releases 0.2.1 to 0.4.1.
"""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from foundation.documents import Document, InvalidDocument, Reader
from foundation.text import printable
from positronic.dataset.episode import Episode
from positronic.errors import EpisodeError
from positronic.geom import pose_inverse, pose_mul, quat_mul

FRAMES = "ee_frames"
MODEL = "urdf"
LINK = "end_effector"
IDENTITY = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)

Pose = tuple[float, ...]
_Number = Annotated[float, Field(ge=-1e6, le=1e6)]


@dataclass(frozen=True)
class FrameTransform:
    """Poses ``(n, 7)`` of one frame to those of another, at the pose ``offset`` in the first."""

    offset: Pose

    def __call__(self, poses: NDArray[Any]) -> NDArray[Any]:
        """Poses of the other frame."""
        return pose_mul(poses, self.offset).astype(poses.dtype)


def frame_transforms(
    episode: Episode, names: Iterable[str]
) -> tuple[dict[str, FrameTransform], dict[str, Any]]:
    """The transform of each pose signal of ``names`` that needs one, and ``ee_frames`` afterwards.

    EpisodeError if ``ee_frames`` is invalid, or if the two links are not rigidly connected.
    """
    stated = episode.static.get(FRAMES, {})
    if not isinstance(stated, Mapping):
        raise _invalid_frames(stated)
    entries = {name: _point(stated[name]) for name in names if name in stated}
    if not entries:
        return {}, {}
    model = episode.static.get(MODEL)
    if not isinstance(model, str):
        raise EpisodeError(
            f"its static {FRAMES!r} names frames of its poses, but it has no static {MODEL!r} that "
            f"defines them; set {FRAMES!r} to {{}} with an edit log to use the poses as they are"
        )
    links = _links(model)
    found: dict[str, FrameTransform] = {}
    after = dict(stated)
    for name, (link, offset) in entries.items():
        end = LINK if LINK in links else link
        transform = _tuple(pose_mul(pose_inverse(offset), links.transform(link, end)))
        if not np.allclose(transform, IDENTITY, rtol=0, atol=1e-12):
            found[name] = FrameTransform(transform)
            after[name] = {"site": end, "offset": list(IDENTITY)}
    return found, after


class _Point(Document):
    site: str
    offset: list[_Number] = Field(
        default_factory=lambda: list(IDENTITY), min_length=7, max_length=7
    )


def _point(entry: Any) -> tuple[str, Pose]:
    try:
        point = Reader().validate(entry, _Point, FRAMES)
    except InvalidDocument as error:
        raise _invalid_frames(entry) from error
    if abs(np.linalg.norm(point.offset[3:]) - 1) >= 1e-3:
        raise _invalid_frames(entry)
    return point.site, _tuple(point.offset)


def _invalid_frames(stated: Any) -> EpisodeError:
    return EpisodeError(
        f"its static {FRAMES!r} is {printable(repr(stated))}, expected for each pose signal "
        f"e.g. {{'site': 'gripper', 'offset': {list(IDENTITY)}}}; correct it with an edit log"
    )


class _Links:
    """The links of a URDF model, each with its parent joint."""

    def __init__(self, names: set[str], joints: Mapping[str, tuple[str, bool, Pose]]) -> None:
        self._names, self._joints = names, joints

    def __contains__(self, link: str) -> bool:
        return link in self._names

    def transform(self, start: str, end: str) -> Pose:
        """The pose of ``end`` in the frame of ``start``; EpisodeError if a joint between moves."""
        if start == end:
            return IDENTITY
        if start not in self._names:
            raise EpisodeError(f"its {MODEL} has no link {start!r}, to which its {FRAMES!r} refers")
        (root, first), (other, second) = self._from_rigid_root(start), self._from_rigid_root(end)
        if root != other:
            raise EpisodeError(
                f"its {MODEL} has joints that move between {start!r}, the frame of its poses, and "
                f"{end!r}; set {FRAMES!r} to {{}} with an edit log to use the poses as they are"
            )
        return _tuple(pose_mul(pose_inverse(first), second))

    def _from_rigid_root(self, link: str) -> tuple[str, Pose]:
        pose: Pose = IDENTITY
        for _ in range(len(self._joints) + 1):  # bounded, in case the joints form a cycle
            parent, is_fixed, origin = self._joints.get(link, ("", False, IDENTITY))
            if not is_fixed:
                break
            link, pose = parent, _tuple(pose_mul(origin, pose))
        return link, pose


def _links(model: str) -> _Links:
    try:
        root = ElementTree.fromstring(model)
        joints = {}
        for joint in root.findall("joint"):
            parent, child = joint.find("parent"), joint.find("child")
            if parent is not None and child is not None:
                is_fixed = joint.get("type") == "fixed"
                joints[child.get("link", "")] = parent.get("link", ""), is_fixed, _origin(joint)
    except (ElementTree.ParseError, ValueError) as error:
        why = printable(error)
        raise EpisodeError(f"its static {MODEL!r} is not a valid URDF: {why}") from error
    return _Links({link.get("name", "") for link in root.findall("link")}, joints)


def _origin(joint: Any) -> Pose:
    """Pose of a joint in its parent link; URDF's rpy are angles about fixed axes, x first."""
    origin = joint.find("origin")
    if origin is None:
        return IDENTITY
    step = [float(word) for word in origin.get("xyz", "0 0 0").split()]
    angles = [float(word) for word in origin.get("rpy", "0 0 0").split()]
    if len(step) != 3 or len(angles) != 3 or not np.isfinite([step, angles]).all():
        raise ValueError(f"the origin {origin.attrib} must have three numbers each")
    x, y, z = (_about(axis, angle) for axis, angle in enumerate(angles))
    return (*step, *_tuple(quat_mul(quat_mul(z, y), x)))


def _about(axis: int, angle: float) -> NDArray[np.float64]:
    turn = np.zeros(4)
    turn[0], turn[1 + axis] = np.cos(angle / 2), np.sin(angle / 2)
    return turn


def _tuple(numbers: Any) -> Pose:
    return tuple(float(number) for number in numbers)
