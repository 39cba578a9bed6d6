"""What computes a checkpoint's actions: LeRobot's policy in torch, or an export of it."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from positronic.codec import Contract
from positronic.vendors.lerobot.checkpoints import Checkpoint

if TYPE_CHECKING:
    from positronic.vendors.lerobot.backends.torch_backend import TorchBackend

# Of an action dimension's scale: its standard deviation in the dataset, or its largest magnitude,
# whichever is more. Sums in another order differ by 1e-6; 1e-4 is far below what a robot repeats.
TOLERANCES = {"float32": 1e-4, "bf16": 5e-2}


class Backend(Protocol):
    """Observations as the codec makes them to actions in the dataset's units.

    Attributes:
        name: ``torch``, ``onnx`` or ``openvino``.
        precision: ``float32`` or ``bf16``.
        tolerance: Largest accepted difference from LeRobot's policy in float32, in parts of each
            action dimension's scale.
        nbytes: Memory that the weights hold.
    """

    name: str
    precision: str
    tolerance: float
    nbytes: int

    def predict_chunk(self, batch: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Predict for observations of any number of sessions at once; one thread at a time.

        Args:
            batch: Codec output, stacked: float32 vectors (B, n), uint8 images (B, H, W, 3).

        Returns:
            (B, chunk_size, A).
        """


def choose_backend(
    checkpoint: Checkpoint,
    contract: Contract,
    eager: "TorchBackend",
    *,
    backend: str = "torch",
    precision: str = "float32",
    compile: bool = False,
    say: Callable[[str], None] = print,
) -> Backend:
    """Choose what computes the actions of a checkpoint.

    Args:
        checkpoint: Where it is.
        contract: What it was trained for.
        eager: It, loaded.
        backend: ``auto``, ``torch``, ``onnx`` or ``openvino``.
        precision: ``float32`` or ``bf16``.
        compile: Let torch compile the policy; takes minutes on a CPU.
        say: Told what takes long, and what was chosen.
    """
    return eager
