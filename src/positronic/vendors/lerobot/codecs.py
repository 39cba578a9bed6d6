"""The codecs by name, for the command line and for Python.

``--codec=@positronic.vendors.lerobot.codecs.eepose_absolute --codec.image_size=[64,64]``, or
``eepose_absolute(image_size=(64, 64))``. Outputs, shapes and units of ``eepose_absolute`` and
``joints_absolute`` are those of the public Positronic of January 2026, camera names included:
the wrist is ``left``, the exterior camera ``side``.
"""

from collections.abc import Sequence
from typing import Any

import configuronic as cfn

from positronic.codec import AbsolutePose, Codec, Image, ObjectPoses, Parallel, Vector

__all__ = ["eepose_absolute", "eepose_state", "joints_absolute"]

IMAGE_SIZE = (224, 224)


@cfn.config()
def eepose_absolute(image_size: int | Sequence[int] = IMAGE_SIZE) -> Codec:
    """End-effector pose, grip and two cameras; absolute end-effector actions.

    Args:
        image_size: height and width of the images in pixels, as in [64,64].
    """
    state = Vector("observation.state", (("robot_state.ee_pose", 7), ("grip", 1)))
    return Parallel((state, *_cameras(image_size), AbsolutePose()), "eepose_absolute")


@cfn.config()
def joints_absolute(image_size: int | Sequence[int] = IMAGE_SIZE) -> Codec:
    """Joint angles, grip and two cameras; the actions are end-effector poses all the same.

    Args:
        image_size: height and width of the images in pixels, as in [64,64].
    """
    state = Vector("observation.state", (("robot_state.q", 7), ("grip", 1)))
    return Parallel((state, *_cameras(image_size), AbsolutePose()), "joints_absolute")


@cfn.config()
def eepose_state(n_objects: int = 2) -> Codec:
    """End-effector pose, grip and the simulator's object poses, no images; end-effector actions.

    Args:
        n_objects: how many objects the scene has.
    """
    state = Vector("observation.state", (("robot_state.ee_pose", 7), ("grip", 1)))
    return Parallel((state, ObjectPoses(n_objects=n_objects), AbsolutePose()), "eepose_state")


def _cameras(image_size: int | Sequence[int]) -> tuple[Image, Image]:
    size: Any = image_size
    return (
        Image("observation.images.left", "image.wrist", size),
        Image("observation.images.side", "image.exterior", size),
    )
