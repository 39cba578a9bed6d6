"""Codec: observation encoder and action decoder of a policy as one object.

A `Codec` encodes raw signals (``robot_state.ee_pose``, ``image.wrist``, ...) to the features that a
policy is trained on, and decodes the policy's action to a command for the robot. The same
``encode`` is used for recorded episodes and live observations, so training and inference agree.
`Contract` is the document by which dataset, checkpoint and session check that.

Codecs compose: ``a & b`` encodes with both and merges the features, ``stage | codec`` lets a
`Stage` rewrite raw signals before the codec, and commands after it.
"""

from positronic.codec.action import AbsolutePose
from positronic.codec.base import Codec, Features, Parallel, Row, Sequential, Stage, from_spec
from positronic.codec.contract import Contract, stats_digest
from positronic.codec.limits import Limits
from positronic.codec.observation import Image, ObjectPoses, Vector
from positronic.codec.stages import FlipGrip, Rename
from positronic.codec.vectors import read, require_rotations

__all__ = [
    "AbsolutePose",
    "Codec",
    "Contract",
    "Features",
    "FlipGrip",
    "Image",
    "Limits",
    "ObjectPoses",
    "Parallel",
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
