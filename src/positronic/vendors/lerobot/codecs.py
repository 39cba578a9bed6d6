"""Codecs by name, for the command line and for Python.

``--codec=.eepose_absolute --codec.image_size=[64,64]``, or
``eepose_absolute(image_size=(64, 64))``. Outputs, shapes and units of ``eepose_absolute`` and
``joints_absolute`` are those of the public Positronic of January 2026, camera names included:
the wrist is ``left``, the exterior camera ``side``. The signs of quaternions differ: they follow
the rule of `positronic.codec.vectors`. ``--codec.quat_reference=None`` leaves them as recorded, for
checkpoints without a contract that were trained so.
"""

from collections.abc import Sequence
from typing import Any

import configuronic as cfn

from positronic.cfg.components import CODEC
from positronic.codec import AbsolutePose, Codec, Image, ObjectPoses, Parallel, Vector
from positronic.codec.vectors import QUAT_REFERENCE

__all__ = ["eepose_absolute", "eepose_state", "joints_absolute"]

IMAGE_SIZE = (224, 224)

Reference = Sequence[float] | None


def require_codec(value: Any, flag: str) -> Codec:
    """Return the value of ``flag`` if it is a codec.

    Raises:
        UsageError: it is not; the message lists the codecs.
    """
    codec: Codec = CODEC.require(value, flag)
    return codec


@cfn.config()
def eepose_absolute(
    image_size: int | Sequence[int] = IMAGE_SIZE, quat_reference: Reference = QUAT_REFERENCE
) -> Codec:
    """End-effector pose, grip and two cameras; absolute end-effector actions.

    Args:
        image_size: height and width of the images in pixels, as in [64,64].
        quat_reference: quaternion wxyz in whose hemisphere an episode begins; None leaves the
            signs of quaternions as they are recorded and sent.
    """
    state, action = _arm((("robot_state.ee_pose", 7), ("grip", 1)), quat_reference)
    return Parallel((state, *_cameras(image_size), action), "eepose_absolute")


@cfn.config()
def joints_absolute(
    image_size: int | Sequence[int] = IMAGE_SIZE, quat_reference: Reference = QUAT_REFERENCE
) -> Codec:
    """Joint angles, grip and two cameras; the actions are end-effector poses all the same.

    Args:
        image_size: height and width of the images in pixels, as in [64,64].
        quat_reference: quaternion wxyz in whose hemisphere an episode begins; None leaves the
            signs of quaternions as they are recorded and sent.
    """
    state, action = _arm((("robot_state.q", 7), ("grip", 1)), quat_reference)
    return Parallel((state, *_cameras(image_size), action), "joints_absolute")


@cfn.config()
def eepose_state(n_objects: int = 2, quat_reference: Reference = QUAT_REFERENCE) -> Codec:
    """End-effector pose, grip and the simulator's object poses, no images; end-effector actions.

    Args:
        n_objects: how many objects the scene has.
        quat_reference: quaternion wxyz in whose hemisphere an episode begins; None leaves the
            signs of quaternions as they are recorded and sent.
    """
    state, action = _arm((("robot_state.ee_pose", 7), ("grip", 1)), quat_reference)
    return Parallel((state, ObjectPoses(n_objects=n_objects), action), "eepose_state")


def _arm(
    signals: tuple[tuple[str, int], ...], quat_reference: Reference
) -> tuple[Vector, AbsolutePose]:
    reference: Any = quat_reference
    state = Vector("observation.state", signals, reference)
    return state, AbsolutePose(quat_reference=reference)


def _cameras(image_size: int | Sequence[int]) -> tuple[Image, Image]:
    size: Any = image_size
    return (
        Image("observation.images.left", "image.wrist", size),
        Image("observation.images.side", "image.exterior", size),
    )
