"""Codec: observation encoder and action decoder of a policy as one object.

A `Codec` encodes raw signals (``robot_state.ee_pose``, ``image.wrist``, ...) to the features that a
policy is trained on, and decodes the policy's action to a command for the robot. The same
``encode`` is used for recorded episodes and live observations, so training and inference agree.
`Contract` is the document by which dataset, checkpoint and session check that.

Codecs compose: ``a & b`` encodes with both and merges the features, ``stage | codec`` lets a
`Stage` rewrite raw signals before the codec, and commands after it.
"""

from positronic.codec.action import AbsolutePose, JointTargets
from positronic.codec.arms import Arms
from positronic.codec.base import Codec, Command, Features, Parallel, Row, Sequential, Stage
from positronic.codec.contract import Contract, stats_digest
from positronic.codec.documents import from_spec
from positronic.codec.lerobot_features import LeRobotFeatures
from positronic.codec.limits import Limits
from positronic.codec.observation import Image, ObjectPoses, Vector
from positronic.codec.relative import DeltaPose, RelativePose
from positronic.codec.stages import FlipGrip, Rename
from positronic.codec.vectors import read, require_rotations

__all__ = [
    "AbsolutePose",
    "Arms",
    "Codec",
    "Command",
    "Contract",
    "DeltaPose",
    "Features",
    "FlipGrip",
    "Image",
    "JointTargets",
    "LeRobotFeatures",
    "Limits",
    "ObjectPoses",
    "Parallel",
    "RelativePose",
    "Rename",
    "Row",
    "Sequential",
    "Stage",
    "Vector",
    "from_spec",
    "read",
    "require_rotations",
    "stats_digest",
]
