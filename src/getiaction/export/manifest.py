"""Manifest of an export: ``manifest.json`` with inputs, outputs, settings and file digests."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from foundation.documents import Document, Reader, RelativeName
from foundation.files import sha256_of
from getiaction.errors import GetiactionError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
FILES = {
    "onnx": ("model.onnx",),
    "openvino": ("model.xml", "model.bin"),
    "torch": ("model.pt2",),
}
# Packages for exporting to each backend, including its runtime, which the check needs.
NEEDS: dict[str, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "torch": (),
}
OUTPUT = "action"

# Policies whose chunk is one pass through a network, without noise: LeRobot's names of them.
EXPORTABLE = ("act",)


@dataclass(frozen=True)
class Spec:
    """One input or output of the graph.

    Args:
        key: LeRobot's key, e.g. ``observation.images.top``; also the name in the graph.
        shape: Of one sample, without the batch dimension.
        dtype: numpy's name of the dtype.
        range: Smallest and largest value of an image; ``None`` for values in the dataset's units.
    """

    key: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    range: tuple[float, float] | None = None

    def accept(self, value: Any) -> NDArray[Any]:
        """Return ``value`` as a valid input of the graph.

        An image may be uint8 if the graph takes float32 in [0, 1]; it is divided by 255, as in the
        policy.

        Args:
            value: (B, \\*shape), a numpy array or convertible to one, e.g. a torch tensor.

        Raises:
            GetiactionError: it has another shape or dtype, or an image is not in its range.
        """
        try:
            array = np.asarray(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise GetiactionError(
                f"{self.key} is a {type(value).__name__} that numpy cannot take ({error}); give a "
                "numpy array or a tensor on the CPU"
            ) from error
        if array.ndim != len(self.shape) + 1 or array.shape[1:] != self.shape or not len(array):
            expected = ", ".join(["B", *map(str, self.shape)])
            raise GetiactionError(
                f"{self.key} has the shape {array.shape}; expected ({expected}), B > 0"
            )
        if self.range is not None and self.dtype == "float32" and array.dtype == np.uint8:
            return array.astype(np.float32) / np.float32(255)
        if array.dtype != self.dtype:
            expected = self.dtype
            if self.range is not None and self.dtype == "float32":
                expected = "float32 in [0, 1] or uint8 in 0..255"
            raise GetiactionError(f"{self.key} has the dtype {array.dtype}; expected {expected}")
        if self.range is not None and array.dtype != np.uint8:  # whose values are all in range
            self._check_range(array)
        return array

    def _check_range(self, image: NDArray[Any]) -> None:
        low, high = float(image.min()), float(image.max())
        # Resizing overshoots a little; this catches 0..255, -1..1, and NaN.
        assert self.range is not None
        margin = 0.1 * (self.range[1] - self.range[0])
        if not (self.range[0] - margin <= low and high <= self.range[1] + margin):
            raise GetiactionError(
                f"{self.key} has values from {low:.4g} to {high:.4g}; expected "
                f"{self.dtype} in [{self.range[0]:g}, {self.range[1]:g}]"
            )


@dataclass(frozen=True)
class Check:
    """Result of comparing an export's actions with the policy's.

    Args:
        tolerance: The largest accepted difference.
        measured: The largest difference. Both are parts of an action dimension's scale: its spread
            in the dataset, or its largest magnitude in the check, whichever is more.
        observations: How many observations were compared.
    """

    tolerance: float
    measured: float
    observations: int


@dataclass(frozen=True)
class Manifest:
    """Content of ``manifest.json``.

    Args:
        policy_type: LeRobot's name of the policy.
        backend: ``onnx``, ``openvino`` or ``torch``.
        inputs: The inputs, in the graph's order.
        outputs: ``action``, (B, chunk_size, A), in the dataset's units.
        chunk_size: Actions that one pass plans.
        n_action_steps: Number of these that are played before the next pass.
        temporal_ensemble_coeff: Coefficient of LeRobot's ACT; ``None`` for a queue of actions.
        fps: Actions per second, if known.
        check: ``None`` if the export was not compared with the policy.
        versions: The packages that made it.
        files: sha256 of each file.
        source: The ``source`` given to ``export``.
        format_version: Version of this file's format.
    """

    policy_type: str
    backend: str
    inputs: tuple[Spec, ...]
    outputs: tuple[Spec, ...]
    chunk_size: int
    n_action_steps: int
    temporal_ensemble_coeff: float | None
    fps: float | None
    check: Check | None
    versions: dict[str, str]
    files: dict[str, str]
    source: str | None = None
    format_version: int = FORMAT_VERSION

    def write(self, directory: Path) -> None:
        """Write ``manifest.json``."""
        text = json.dumps(asdict(self), indent=2)
        (directory / MANIFEST).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read the manifest of the export in ``directory``.

        Raises:
            GetiactionError: there is none, it is of a newer format, or it is damaged.
        """
        file = directory / MANIFEST
        try:
            raw = _READER.load_json(file, dict[str, Any])
        except (FileNotFoundError, NotADirectoryError) as error:
            raise GetiactionError(
                f"{directory} is not an export: it has no {MANIFEST}; make one with "
                "getiaction.export.export(policy, path)"
            ) from error
        version = raw.get("format_version")
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise GetiactionError(
                f"{directory} is an export of format {version}; this version reads up to "
                f"{FORMAT_VERSION}: update positronic-lightning, or export again with this version"
            )
        document = _READER.validate(raw, _Manifest, str(file))
        if document.n_action_steps > document.chunk_size:
            raise _READER.refusal(
                f"{file}: field 'n_action_steps': expected at most the chunk_size, which is "
                f"{document.chunk_size}, found {document.n_action_steps}"
            )
        fields = {name: getattr(document, name) for name in _Manifest.model_fields}
        check = document.check and Check(**document.check.model_dump())
        inputs = tuple(Spec(**spec.model_dump()) for spec in document.inputs)
        outputs = tuple(Spec(**spec.model_dump()) for spec in document.outputs)
        return cls(**{**fields, "inputs": inputs, "outputs": outputs, "check": check})

    def verify(self, directory: Path) -> None:
        """Verify the digests of the files.

        Raises:
            GetiactionError: a file is missing or has changed.
        """
        for name in FILES[self.backend]:
            file = directory / name
            if not file.is_file():
                raise GetiactionError(f"{file} is missing; copy the whole export, or export again")
            found, expected = sha256_of(file), self.files.get(name)
            if found != expected:
                raise GetiactionError(
                    f"{file} is not what was exported: its sha256 is {found[:12]}…, expected "
                    f"{str(expected)[:12]}…; copy it again, or export again"
                )


class _Spec(Document):
    key: Annotated[str, Field(min_length=1)]
    shape: Annotated[tuple[Annotated[int, Field(ge=1, lt=2**31)], ...], Field(strict=False)]
    dtype: Annotated[str, Field(pattern="^(float|u?int)(8|16|32|64)$")]
    range: Annotated[tuple[float, float], Field(strict=False)] | None


class _Check(Document, extra="forbid"):
    tolerance: float
    measured: float
    observations: int


class _Manifest(Document, extra="forbid"):
    policy_type: str
    backend: Literal["onnx", "openvino", "torch"]
    inputs: Annotated[list[_Spec], Field(min_length=1)]
    outputs: Annotated[list[_Spec], Field(min_length=1)]
    chunk_size: Annotated[int, Field(ge=1, le=2**20)]
    n_action_steps: Annotated[int, Field(ge=1)]
    temporal_ensemble_coeff: float | None
    fps: Annotated[float, Field(gt=0)] | None
    check: _Check | None
    versions: dict[str, str]
    files: dict[RelativeName, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]]
    source: str | None = None
    format_version: Annotated[int, Field(ge=1)] = FORMAT_VERSION


_READER = Reader(error=GetiactionError, mend="export again", size=1 << 20, values=50_000)
