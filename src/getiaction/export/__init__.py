"""Export of policies to ONNX, OpenVINO or ``torch.export`` files that run without LeRobot.

:func:`export` writes a policy as one graph, with inputs and outputs in the dataset's units;
:class:`InferenceModel` runs it with numpy and the one runtime that the export is for.
"""

from typing import TYPE_CHECKING, Any

from getiaction.export.inference import InferenceModel

if TYPE_CHECKING:
    from getiaction.export.exporter import export

__all__ = ["InferenceModel", "export"]


def __getattr__(name: str) -> Any:
    # `export` needs torch, which is not required for running an export.
    if name == "export":
        from getiaction.export.exporter import export

        return export
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
