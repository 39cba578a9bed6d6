"""Codecs by name, for the command line and for Python.

``--codec=.eepose_absolute --codec.image_size=[64,64]``, or
``eepose_absolute(image_size=(64, 64))``. Outputs, shapes and units of ``eepose_absolute`` and
``joints_absolute`` are those of the public Positronic of January 2026, camera names included:
the wrist is ``left``, the exterior camera ``side``. The signs of quaternions differ: they follow
the rule of `positronic.codec.vectors`. ``--codec.quat_reference=None`` leaves them as recorded, for
checkpoints without a contract that were trained so.

Names of signals are flags (`positronic.vendors.lerobot.codec_flags`): ``--codec.cameras``,
``--codec.state``, ``--codec.command``, ``--codec.grip``.
"""

from collections.abc import Sequence
from typing import Any

import configuronic as cfn

from positronic.cfg.components import CODEC
from positronic.codec import (
    AbsolutePose,
    Arms,
    Codec,
    DeltaPose,
    JointTargets,
    ObjectPoses,
    Parallel,
    RelativePose,
)
from positronic.codec.vectors import QUAT_REFERENCE
from positronic.vendors.lerobot.codec_flags import (
    CAMERAS,
    IMAGE_SIZE,
    cameras_of,
    names_of,
    state_of,
)

__all__ = [
    "bimanual_eepose",
    "bimanual_joints",
    "eepose_absolute",
    "eepose_delta",
    "eepose_relative",
    "eepose_state",
    "joints",
    "joints_absolute",
    "joints_state",
]

Names = Any  # a list of names; on the command line also text such as [grip,robot_state.q]
Sizes = Any  # one number, a pair, or either by camera
EE_POSE = ("robot_state.ee_pose", "grip")
JOINTS = ("robot_state.q", "grip")
ARMS = ("left.", "right.")

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
    image_size: Sizes = IMAGE_SIZE,
    quat_reference: Reference = QUAT_REFERENCE,
    cameras: Names = CAMERAS,
    state: Names = EE_POSE,
    rotation: str = "wxyz",
) -> Codec:
    """End-effector pose, grip and two cameras; absolute end-effector actions.

    Args:
        image_size: height and width of the images in pixels, as in [64,64]; or of each, as in
            {front: 96, wrist: [64,64]}.
        quat_reference: quaternion wxyz in whose hemisphere an episode begins; None leaves the
            signs of quaternions as they are recorded and sent.
        cameras: image signals by the names of their features, as in {front: image.front}; or a list
            of signals; or none.
        state: numeric signals that the policy sees, as in [robot_state.ee_pose,grip].
        rotation: how rotations are written: wxyz, xyzw, rot6d or rotvec.
    """
    observed = state_of(state, quat_reference, rotation)
    action = _pose(quat_reference, rotation)
    return Parallel((observed, *cameras_of(cameras, image_size), action), "eepose_absolute")


@cfn.config()
def joints_absolute(
    image_size: Sizes = IMAGE_SIZE,
    quat_reference: Reference = QUAT_REFERENCE,
    cameras: Names = CAMERAS,
) -> Codec:
    """Joint angles, grip and two cameras; the actions are end-effector poses all the same.

    Args:
        image_size: height and width of the images in pixels, as in [64,64]; or of each, as in
            {front: 96, wrist: [64,64]}.
        quat_reference: quaternion wxyz in whose hemisphere an episode begins; None leaves the
            signs of quaternions as they are recorded and sent.
        cameras: image signals by the names of their features, as in {front: image.front}; or a list
            of signals; or none.
    """
    observed = state_of(("robot_state.q:7", "grip"), quat_reference)
    action = _pose(quat_reference)
    return Parallel((observed, *cameras_of(cameras, image_size), action), "joints_absolute")


@cfn.config()
def eepose_state(
    n_objects: int = 2, quat_reference: Reference = QUAT_REFERENCE, rotation: str = "wxyz"
) -> Codec:
    """End-effector pose, grip and the simulator's object poses, no images; end-effector actions.

    Args:
        n_objects: how many objects the scene has.
        quat_reference: quaternion wxyz in whose hemisphere an episode begins; None leaves the
            signs of quaternions as they are recorded and sent.
        rotation: how rotations of the gripper are written: wxyz, xyzw, rot6d or rotvec.
    """
    observed = state_of(EE_POSE, quat_reference, rotation)
    action = _pose(quat_reference, rotation)
    return Parallel((observed, ObjectPoses(n_objects=n_objects), action), "eepose_state")


@cfn.config()
def joints(
    n_joints: int | None = None,
    cameras: Names = CAMERAS,
    image_size: Sizes = IMAGE_SIZE,
    state: Names = JOINTS,
    command: str = "robot_commands.joints",
    grip: str | None = "target_grip",
) -> Codec:
    """Joint positions, grip and cameras; the actions are target positions of the joints.

    Args:
        n_joints: how many joints the arm has; conversion takes it from the first recording.
        cameras: image signals by the names of their features, as in {front: image.front}; or a list
            of signals; or none.
        image_size: height and width of the images in pixels, as in [64,64]; or of each, as in
            {front: 96, wrist: [64,64]}.
        state: numeric signals that the policy sees, as in [robot_state.q,grip]; NAME:6 states how
            many numbers one has.
        command: the signal of the joints' target positions.
        grip: the signal of the target grip; None if the gripper is one of the joints.
    """
    observed = state_of(state, n_joints=n_joints)
    action = JointTargets(joints=command, n_joints=n_joints, grip=grip)
    return Parallel((observed, *cameras_of(cameras, image_size), action), "joints")


@cfn.config()
def joints_state(
    n_joints: int | None = None,
    n_objects: int = 0,
    state: Names = JOINTS,
    command: str = "robot_commands.joints",
    grip: str | None = "target_grip",
) -> Codec:
    """Joint positions and grip, no images; the actions are target positions of the joints.

    Args:
        n_joints: how many joints the arm has; conversion takes it from the first recording.
        n_objects: how many of the simulator's objects the policy sees.
        state: numeric signals that the policy sees, as in [robot_state.q,grip]; NAME:6 states how
            many numbers one has.
        command: the signal of the joints' target positions.
        grip: the signal of the target grip; None if the gripper is one of the joints.
    """
    observed = state_of(state, n_joints=n_joints)
    objects = (ObjectPoses(n_objects=n_objects),) if n_objects else ()
    action = JointTargets(joints=command, n_joints=n_joints, grip=grip)
    return Parallel((observed, *objects, action), "joints_state")


@cfn.config()
def eepose_relative(
    cameras: Names = CAMERAS,
    image_size: Sizes = IMAGE_SIZE,
    state: Names = ("grip",),
    frame: str = "tool",
    n_objects: int = 0,
) -> Codec:
    """Grip and cameras; end-effector targets relative to the observed pose and the target before.

    Args:
        cameras: image signals by the names of their features, as in {front: image.front}; or a list
            of signals; or none.
        image_size: height and width of the images in pixels, as in [64,64]; or of each, as in
            {front: 96, wrist: [64,64]}.
        state: numeric signals that the policy sees, as in [robot_state.ee_pose,grip].
        frame: along whose axes motions are: tool or base.
        n_objects: how many of the simulator's objects the policy sees.
    """
    return _moving(
        "eepose_relative", RelativePose(frame=frame), cameras, image_size, state, n_objects
    )


@cfn.config()
def eepose_delta(
    cameras: Names = CAMERAS,
    image_size: Sizes = IMAGE_SIZE,
    state: Names = ("grip",),
    frame: str = "tool",
    n_objects: int = 0,
) -> Codec:
    """Grip and cameras; end-effector targets relative to the target before, step by step.

    Args:
        cameras: image signals by the names of their features, as in {front: image.front}; or a list
            of signals; or none.
        image_size: height and width of the images in pixels, as in [64,64]; or of each, as in
            {front: 96, wrist: [64,64]}.
        state: numeric signals that the policy sees, as in [robot_state.ee_pose,grip].
        frame: along whose axes motions are: tool or base.
        n_objects: how many of the simulator's objects the policy sees.
    """
    action = DeltaPose(frame=frame)
    return _moving("eepose_delta", action, cameras, image_size, state, n_objects)


@cfn.config()
def bimanual_joints(
    n_joints: int | None = None,
    cameras: Names = CAMERAS,
    image_size: Sizes = IMAGE_SIZE,
    arms: Names = ARMS,
    state: Names = JOINTS,
    command: str = "robot_commands.joints",
    grip: str | None = "target_grip",
) -> Codec:
    """Joint positions and grips of two arms and cameras; the actions are the joints' targets.

    Args:
        n_joints: how many joints each arm has; conversion takes it from the first recording.
        cameras: image signals by the names of their features, as in {front: image.front}; or a list
            of signals; or none.
        image_size: height and width of the images in pixels, as in [64,64]; or of each, as in
            {front: 96, wrist: [64,64]}.
        arms: what stands before the names of each arm's signals and commands.
        state: numeric signals of each arm that the policy sees, without the arm's prefix.
        command: the signal of the joints' target positions, without the arm's prefix.
        grip: the signal of the target grip, without prefix; None if the gripper is a joint.
    """
    prefixes = names_of(arms, "arms")
    targets = [
        (arm, JointTargets("action", f"{arm}{command}", n_joints, grip and f"{arm}{grip}"))
        for arm in prefixes
    ]
    observed = state_of(_of_each(prefixes, state), n_joints=n_joints)
    parts = (observed, *cameras_of(cameras, image_size), Arms(tuple(targets)))
    return Parallel(parts, "bimanual_joints")


@cfn.config()
def bimanual_eepose(
    cameras: Names = CAMERAS,
    image_size: Sizes = IMAGE_SIZE,
    quat_reference: Reference = QUAT_REFERENCE,
    arms: Names = ARMS,
    state: Names = EE_POSE,
    command: str = "robot_commands.pose",
    grip: str = "target_grip",
    rotation: str = "wxyz",
) -> Codec:
    """End-effector poses and grips of two arms and cameras; absolute end-effector actions.

    Args:
        cameras: image signals by the names of their features, as in {front: image.front}; or a list
            of signals; or none.
        image_size: height and width of the images in pixels, as in [64,64]; or of each, as in
            {front: 96, wrist: [64,64]}.
        quat_reference: quaternion wxyz in whose hemisphere an episode begins; None leaves the
            signs of quaternions as they are recorded and sent.
        arms: what stands before the names of each arm's signals and commands.
        state: numeric signals of each arm that the policy sees, without the arm's prefix.
        command: the signal of the target pose, without the arm's prefix.
        grip: the signal of the target grip, without the arm's prefix.
        rotation: how rotations are written: wxyz, xyzw, rot6d or rotvec.
    """
    prefixes = names_of(arms, "arms")
    targets = [
        (arm, _pose(quat_reference, rotation, f"{arm}{command}", f"{arm}{grip}"))
        for arm in prefixes
    ]
    observed = state_of(_of_each(prefixes, state), quat_reference, rotation)
    parts = (observed, *cameras_of(cameras, image_size), Arms(tuple(targets)))
    return Parallel(parts, "bimanual_eepose")


def _pose(
    reference: Any,
    rotation: str = "wxyz",
    pose: str = "robot_commands.pose",
    grip: str = "target_grip",
) -> AbsolutePose:
    return AbsolutePose("action", pose, grip, reference, rotation)


def _moving(
    label: str, action: Codec, cameras: Names, image_size: Sizes, state: Names, n_objects: int
) -> Codec:
    objects = (ObjectPoses(n_objects=n_objects),) if n_objects else ()
    images = cameras_of(cameras, image_size)
    return Parallel((state_of(state), *objects, *images, action), label)


def _of_each(arms: Sequence[str], state: Names) -> list[str]:
    return [f"{arm}{name}" for arm in arms for name in names_of(state, "state")]
