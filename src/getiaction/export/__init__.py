"""Export of policies to ONNX, OpenVINO or ``torch.export`` files that run without LeRobot.

:func:`export` writes a policy down as one graph, from the dataset's units to the dataset's units;
:class:`InferenceModel` runs it with numpy and the one runtime that the export is for.
"""

from typing import TYPE_CHECKING, Any

from getiaction.export.inference import InferenceModel

if TYPE_CHECKING:
    from getiaction.export.exporter import export

__all__ = ["InferenceModel", "export"]


def __getattr__(name: str) -> Any:
    # Where a policy only runs there need be no torch, which `export` stands on.
    if name == "export":
        from getiaction.export.exporter import export

        return export
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
