"""End-effector frame of recorded poses, and their transform to the link ``end_effector``.

Public Positronic up to 0.3 reported the pose of the link ``end_effector`` of the robot's model.
Since 0.4 its recordings state a point for each pose signal, in the static ``ee_frames``: a link of
the model, which is the static ``urdf``, and an offset from it. With a server that states no such
point, as this one, its robots speak of ``end_effector`` as before, or of the stated link where the
model has no ``end_effector``. That is where the poses of recordings are moved to, so that a policy
is trained on what it gets when it runs. Read in the sources of the releases 0.2.1 to 0.4.1.
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
HERE = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)

Pose = tuple[float, ...]
_Number = Annotated[float, Field(ge=-1e6, le=1e6)]


@dataclass(frozen=True)
class Moved:
    """Poses ``(n, 7)`` of one point to those of another; ``offset`` is its pose from the first."""

    offset: Pose

    def __call__(self, poses: NDArray[Any]) -> NDArray[Any]:
        """Where the other point is."""
        return pose_mul(poses, self.offset).astype(poses.dtype)


def moves(episode: Episode, names: Iterable[str]) -> tuple[dict[str, Moved], dict[str, Any]]:
    """What each pose signal of ``names`` is turned by, and what ``ee_frames`` states after that.

    EpisodeError when its statement makes no sense, or its model has no rigid way between the two.
    """
    stated = episode.static.get(FRAMES, {})
    if not isinstance(stated, Mapping):
        raise _senseless(stated)
    entries = {name: _point(stated[name]) for name in names if name in stated}
    if not entries:
        return {}, {}
    model = episode.static.get(MODEL)
    if not isinstance(model, str):
        raise EpisodeError(
            f"its static {FRAMES!r} says of which points its poses are, and no static {MODEL!r} "
            f"where those are; set {FRAMES!r} to {{}} with an edit log to take poses as they are"
        )
    links = _links(model)
    found: dict[str, Moved] = {}
    after = dict(stated)
    for name, (link, offset) in entries.items():
        end = LINK if LINK in links else link
        way = _tuple(pose_mul(pose_inverse(offset), links.way(link, end)))
        if not np.allclose(way, HERE, rtol=0, atol=1e-12):
            found[name] = Moved(way)
            after[name] = {"site": end, "offset": list(HERE)}
    return found, after


class _Point(Document):
    site: str
    offset: list[_Number] = Field(default_factory=lambda: list(HERE), min_length=7, max_length=7)


def _point(entry: Any) -> tuple[str, Pose]:
    try:
        point = Reader().validate(entry, _Point, FRAMES)
    except InvalidDocument as error:
        raise _senseless(entry) from error
    if abs(np.linalg.norm(point.offset[3:]) - 1) >= 1e-3:
        raise _senseless(entry)
    return point.site, _tuple(point.offset)


def _senseless(stated: Any) -> EpisodeError:
    return EpisodeError(
        f"its static {FRAMES!r} says {printable(repr(stated))}, expected of each pose signal "
        f"such as {{'site': 'gripper', 'offset': {list(HERE)}}}; set it right with an edit log"
    )


class _Links:
    """The links of a model, each with the joint that it hangs on."""

    def __init__(self, names: set[str], joints: Mapping[str, tuple[str, bool, Pose]]) -> None:
        self._names, self._joints = names, joints

    def __contains__(self, link: str) -> bool:
        return link in self._names

    def way(self, start: str, end: str) -> Pose:
        """The pose of one link measured from another, when no joint between them can move."""
        if start == end:
            return HERE
        if start not in self._names:
            raise EpisodeError(f"its {MODEL} has no link {start!r}, which its {FRAMES!r} names")
        (root, first), (other, second) = self._from_rigid_root(start), self._from_rigid_root(end)
        if root != other:
            raise EpisodeError(
                f"its {MODEL} has joints that move between {start!r}, of which its poses are, and "
                f"{end!r}; set {FRAMES!r} to {{}} with an edit log to take poses as they are"
            )
        return _tuple(pose_mul(pose_inverse(first), second))

    def _from_rigid_root(self, link: str) -> tuple[str, Pose]:
        pose: Pose = HERE
        for _ in range(len(self._joints) + 1):  # a model that goes in circles has an end, too
            parent, is_fixed, origin = self._joints.get(link, ("", False, HERE))
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
        raise EpisodeError(f"its static {MODEL!r} is no model of a robot: {why}") from error
    return _Links({link.get("name", "") for link in root.findall("link")}, joints)


def _origin(joint: Any) -> Pose:
    """Where a joint is on its parent; in URDF an angle about each fixed axis, x first."""
    origin = joint.find("origin")
    if origin is None:
        return HERE
    step = [float(word) for word in origin.get("xyz", "0 0 0").split()]
    angles = [float(word) for word in origin.get("rpy", "0 0 0").split()]
    if len(step) != 3 or len(angles) != 3 or not np.isfinite([step, angles]).all():
        raise ValueError(f"the origin {origin.attrib} has not three numbers each")
    x, y, z = (_about(axis, angle) for axis, angle in enumerate(angles))
    return (*step, *_tuple(quat_mul(quat_mul(z, y), x)))


def _about(axis: int, angle: float) -> NDArray[np.float64]:
    turn = np.zeros(4)
    turn[0], turn[1 + axis] = np.cos(angle / 2), np.sin(angle / 2)
    return turn


def _tuple(numbers: Any) -> Pose:
    return tuple(float(number) for number in numbers)
