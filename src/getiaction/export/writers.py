"""Write a traced program as the files of each backend."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from getiaction.export.graph import Traced
from getiaction.export.manifest import FILES
from getiaction.export.runtimes import openvino, require

# What each backend is made with; besides its runtime, which the check needs.
NEEDS: dict[str, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "torch": (),
}


def require_all(backend: str) -> None:
    """Refuse early if a package that ``backend`` is made with is not installed.

    Raises:
        GetiactionError: naming the extra that installs it.
    """
    for package in NEEDS[backend]:
        openvino() if package == "openvino" else require(package, backend)


def save(traced: Traced, backend: str, directory: Path) -> None:
    """Write the files of ``backend`` into ``directory``."""
    if backend == "torch":
        torch.export.save(traced.program, directory / FILES["torch"][0])
        return
    onnx_file = directory / FILES["onnx"][0]
    traced.save_onnx(onnx_file)
    if backend == "openvino":
        _save_openvino(onnx_file, directory / FILES["openvino"][0])
        onnx_file.unlink()


def _save_openvino(onnx_file: Path, file: Path) -> None:
    vino = openvino()
    model = vino.Core().read_model(onnx_file)
    _keep_differences_apart(model)
    # Weights are halved to float16 unless it is told otherwise.
    vino.save_model(model, file, compress_to_fp16=False)


def _keep_differences_apart(model: Any) -> None:
    """Stop OpenVINO from turning (x - mean) / std into x * (1 / std) - mean / std.

    Those two terms are equal and huge where the dataset hardly varies, and their difference is then
    rounding alone: with a std of 0, to which LeRobot adds 1e-8, actions differed by their own size.
    """
    vino = openvino()
    limit = float(np.finfo(np.float32).max)
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Subtract":
            continue
        if node.input_value(1).get_node().get_type_name() != "Constant":
            continue
        readers = list(node.output(0).get_target_inputs())
        same = vino.opset13.clamp(node.output(0), -limit, limit)
        for reader in readers:
            reader.replace_source_output(same.output(0))
