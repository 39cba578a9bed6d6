"""Codec of one's own: joints, one camera, and where the object is as seen from the gripper.

A codec says what a policy sees and what its actions mean. ``python examples/own_codec.py`` shows
this one at work on one observation; the command that converts recordings takes it by name::

    PYTHONPATH=examples positronic-to-lerobot convert --dataset.dataset=RAW --fps=15 \
        --dataset.codec=@own_codec.joints_camera_offset --output_dir=DATASET

A codec that is only put together from parts of ``positronic.codec`` needs no class, and is
understood wherever the library is installed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import configuronic as cfn
import numpy as np
from numpy.typing import NDArray

from positronic.codec import AbsolutePose, Codec, Features, Image, Parallel, Row, Vector


@dataclass(frozen=True)
class ObjectOffset(Codec):
    """The first object's position less the gripper's: three numbers that no recording holds."""

    # Names the class in the contract of a dataset. Whoever reads that must have imported this file.
    kind: ClassVar[str] = "object_offset"
    # The fields of the dataclass are written into the contract, too.
    key: str = "observation.environment_state"

    @property
    def inputs(self) -> tuple[str, ...]:
        """What is read of an observation; a client sends these signals and no others."""
        return ("robot_state.ee_pose", "object_poses")

    @property
    def features(self) -> Features:
        """What is made of it, in LeRobot's words."""
        return {self.key: {"dtype": "float32", "shape": (3,), "names": ["x", "y", "z"]}}

    @property
    def origins(self) -> dict[str, tuple[str, ...]]:
        """The signal of each number; by it a server refuses values far beyond the training data."""
        return {self.key: ("object_poses",) * 3}

    def encode(self, obs: Row, before: Row | None = None) -> dict[str, NDArray[Any]]:
        """Encode one observation, as it comes from a robot."""
        return {self.key: self._offset(obs)}

    def encode_rows(self, columns: Row) -> dict[str, Iterable[NDArray[Any]]]:
        """Encode all rows of a recorded episode; each has to come out as ``encode`` makes it."""
        return {self.key: self._offset(columns)}

    def _offset(self, source: Row) -> NDArray[np.float32]:
        # Of one row (7,) or of many (T, 7): "..." stands for the rows, if there are any.
        # Signals of a known size are better read by ``positronic.codec.read``, which refuses a
        # wrong shape, text and NaN.
        gripper, objects = (np.asarray(source[name], np.float64) for name in self.inputs)
        return (objects[..., :3] - gripper[..., :3]).astype(np.float32)


@cfn.config()
def joints_camera_offset(image_size: int = 64) -> Codec:
    """The whole codec; ``--dataset.codec.image_size=96`` changes the argument.

    Args:
        image_size: height and width of the picture in pixels.
    """
    state = Vector("observation.state", (("robot_state.q", 7), ("grip", 1)))
    wrist = Image("observation.images.wrist", "image.wrist", (image_size, image_size))
    parts = (state, ObjectOffset(), wrist, AbsolutePose())  # the last one makes the actions
    return Parallel(parts, "joints_camera_offset")


def main() -> None:
    """Encode one observation, and decode one action."""
    codec: Codec = joints_camera_offset.instantiate()
    observation = {
        "robot_state.q": np.zeros(7),
        "robot_state.ee_pose": np.array([0.4, 0.0, 0.3, 0.0, 1.0, 0.0, 0.0]),
        "grip": 1.0,
        "object_poses": np.array([0.5, 0.1, 0.02, 1.0, 0.0, 0.0, 0.0]),
        "image.wrist": np.zeros((240, 320, 3), np.uint8),
    }
    for name, value in codec.encode(observation).items():
        print(name, value.tolist() if value.ndim == 1 else value.shape)
    # Position, quaternion wxyz and grip, as a policy that learnt from AbsolutePose gives them.
    command = codec.decode(np.array([0.5, 0.1, 0.12, 0.0, 1.0, 0.0, 0.0, 0.5]))
    print("robot_command", command["robot_command"]["pose"].round(2).tolist())
    print("target_grip", command["target_grip"])


if __name__ == "__main__":
    main()
