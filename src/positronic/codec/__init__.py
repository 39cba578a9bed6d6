"""Codec: observation encoder and action decoder of a policy as one object.

A `Codec` reads raw signals (``robot_state.ee_pose``, ``image.wrist``, ...) and makes the features
a policy is trained on; it decodes the policy's action into a command for the robot. The same
``encode`` runs over recorded episodes and over live observations, so what was trained is what
runs. `Contract` is the document that says so at every border.

Codecs compose: ``a & b`` reads side by side and merges the features, ``stage | codec`` lets a
`Stage` rewrite raw signals (and, backwards, commands) before the codec sees them.
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
