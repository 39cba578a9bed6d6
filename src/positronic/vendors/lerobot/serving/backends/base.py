"""Backend interface: stacked observations in, actions in the dataset's units out."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from foundation.errors import UsageError

NAMES = ("auto", "torch", "onnx", "openvino")

# In parts of an action dimension's scale: its standard deviation in the dataset, or its largest
# magnitude, whichever is more. Sums in another order differ by 1e-6; 1e-4 is far below a robot's
# repeatability. With eight bits of mantissa they differ by 0.01 to 0.02.
TOLERANCES = {"float32": 1e-4, "bf16": 5e-2}


class Backend(Protocol):
    """Computes actions in the dataset's units from observations of the codec.

    Attributes:
        name: ``torch``, ``onnx`` or ``openvino``.
        precision: ``float32`` or ``bf16``.
        tolerance: Largest accepted difference from LeRobot's policy in float32, as a fraction of
            each action dimension's scale.
        nbytes: Bytes of memory that the weights hold.
    """

    name: str
    precision: str
    tolerance: float
    nbytes: int

    def predict_chunk(self, batch: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Predict chunks for a batch of observations; called by one thread at a time.

        Args:
            batch: Codec output, stacked: float32 vectors (B, n), uint8 images (B, H, W, 3).

        Returns:
            (B, chunk_size, A).
        """


def require_options(backend: str, precision: str, compile: bool) -> None:
    """Refuse invalid options, whatever the checkpoint; fast, since it imports nothing.

    Raises:
        UsageError: A name is unknown, or the options exclude each other.
    """
    if backend not in NAMES:
        raise UsageError(f"--backend={backend} is unknown; choose one of {', '.join(NAMES)}")
    if precision not in TOLERANCES:
        known = ", ".join(TOLERANCES)
        raise UsageError(f"--precision={precision} is unknown; choose one of {known}")
    if compile and backend in ("onnx", "openvino"):
        raise UsageError(
            f"--compile compiles torch's policy; leave it, or --backend={backend}, away"
        )
    if precision == "bf16" and backend == "onnx":
        raise UsageError(
            "--precision=bf16 is nothing that ONNX Runtime has on a CPU; use --backend=openvino,"
            " --backend=torch or --precision=float32"
        )
