"""Backend that runs a checkpoint's export (ONNX or OpenVINO) on the CPU."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from getiaction.export.inference import InferenceModel
from positronic.vendors.lerobot.serving.backends.base import TOLERANCES


class ExportedBackend:
    """See `Backend`.

    Args:
        model: The export, loaded; its graph takes uint8 images.
        precision: That it was loaded for.
        nbytes: Of the graph and its weights.
    """

    def __init__(self, model: InferenceModel, precision: str, nbytes: int) -> None:
        self.name = model.manifest.backend
        self.precision, self.tolerance = precision, TOLERANCES[precision]
        self.nbytes = nbytes
        self._model = model

    def predict_chunk(self, batch: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """See `Backend`."""
        keys = [spec.key for spec in self._model.manifest.inputs]
        return self._model.predict_action_chunk({key: _channels_first(batch[key]) for key in keys})


def _channels_first(array: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2)) if array.ndim == 4 else array
