"""Runtimes of an export: ONNX Runtime, OpenVINO and torch, each imported when it is needed."""

import importlib
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from getiaction.errors import GetiactionError
from getiaction.export.manifest import FILES, OUTPUT

type Arrays = Mapping[str, NDArray[Any]]


class Runtime(ABC):
    """A loaded graph."""

    @abstractmethod
    def __init__(
        self,
        directory: Path,
        device: str,
        threads: int | None = None,
        precision: str = "float32",
    ) -> None:
        """Load the export in ``directory``; ``device`` is ``auto`` or the runtime's own name.

        Raises:
            GetiactionError: it has no such device, precision or setting.
        """

    @abstractmethod
    def run(self, inputs: Arrays) -> NDArray[np.float32]:
        """Return the actions (B, T, A) for inputs in the graph's order."""


class OnnxRuntime(Runtime):
    """``device``: ``auto`` (CUDA where onnxruntime has it), ``cpu`` or ``cuda``."""

    def __init__(
        self,
        directory: Path,
        device: str,
        threads: int | None = None,
        precision: str = "float32",
    ) -> None:
        """Load ``model.onnx``."""
        _only_float32("onnx", precision)
        onnxruntime = require("onnxruntime", "onnx")
        there = onnxruntime.get_available_providers()
        offered = {"cpu": "CPUExecutionProvider"}
        if "CUDAExecutionProvider" in there:
            offered["cuda"] = "CUDAExecutionProvider"
        chosen = _choose(device, offered, "onnx", best="cuda")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        options.intra_op_num_threads = threads or 0  # 0 is one for each core
        # Spinning threads take a third more CPU time, without gain when other processes are busy.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # TensorFloat-32 would round products to ten bits.
        settings = {"use_tf32": "0"} if chosen == "cuda" else {}
        self.session: Any = onnxruntime.InferenceSession(
            directory / FILES["onnx"][0], options, providers=[(offered[chosen], settings)]
        )
        # If CUDA cannot be loaded, onnxruntime falls back to the CPU.
        if device.lower() == chosen and offered[chosen] not in self.session.get_providers():
            raise GetiactionError(
                f"onnxruntime could not use {device!r}; mend its CUDA libraries, or leave "
                "device='auto'"
            )

    def run(self, inputs: Arrays) -> NDArray[np.float32]:
        """Run the session."""
        actions: NDArray[np.float32] = self.session.run([OUTPUT], dict(inputs))[0]
        return actions


class OpenVinoRuntime(Runtime):
    """``device``: ``auto`` (GPU where there is one), or a device of OpenVINO such as ``cpu``."""

    def __init__(
        self,
        directory: Path,
        device: str,
        threads: int | None = None,
        precision: str = "float32",
    ) -> None:
        """Load ``model.xml`` and compile it for ``precision``, float32 or bf16."""
        hint = {"float32": "f32", "bf16": "bf16"}.get(precision)
        if hint is None:
            raise GetiactionError(f"precision is {precision!r}; expected 'float32' or 'bf16'")
        core = openvino().Core()
        # Truncating a memory-mapped file would kill the process (SIGBUS).
        core.set_property({"ENABLE_MMAP": False})
        offered = {name.lower(): name for name in core.available_devices}
        chosen = _choose(device, offered, "openvino", best="gpu")
        # Otherwise OpenVINO silently uses bfloat16 on CPUs that have it.
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
        if chosen == "cpu":
            settings |= {
                "INFERENCE_NUM_THREADS": threads or 0,  # 0 is one for each core
                # Threads pinned to cores wait for other busy processes there.
                "ENABLE_CPU_PINNING": False,
            }
        self.model: Any = core.compile_model(
            directory / FILES["openvino"][0], offered[chosen], settings
        )

    def run(self, inputs: Arrays) -> NDArray[np.float32]:
        """Run the compiled model."""
        actions: NDArray[np.float32] = self.model(dict(inputs))[OUTPUT]
        return actions


class TorchRuntime(Runtime):
    """``device``: ``auto`` (CUDA where torch has it), or a device of torch such as ``cpu``."""

    def __init__(
        self,
        directory: Path,
        device: str,
        threads: int | None = None,
        precision: str = "float32",
    ) -> None:
        """Load ``model.pt2``; ``threads`` is ignored in favour of torch's own setting."""
        _only_float32("torch", precision)
        self.torch = require("torch", "torch")
        passes = importlib.import_module("torch.export.passes")
        offered = {"cpu": "cpu"}
        if self.torch.cuda.is_available():
            indices = range(self.torch.cuda.device_count())
            offered |= {"cuda": "cuda"} | {f"cuda:{i}": f"cuda:{i}" for i in indices}
        self.device = offered[_choose(device, offered, "torch", best="cuda")]
        with warnings.catch_warnings():
            # torch warns about read-only memory that it loaded the archive into itself.
            warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)
            program = self.torch.export.load(directory / FILES["torch"][0])
        if self.device != "cpu":
            program = passes.move_to_device_pass(program, self.device)
        self.module: Any = program.module()

    def run(self, inputs: Arrays) -> NDArray[np.float32]:
        """Run the exported program."""
        with self.torch.no_grad():
            tensors = [self.torch.tensor(array, device=self.device) for array in inputs.values()]
            actions: NDArray[np.float32] = self.module(*tensors).cpu().numpy()
        return actions


RUNTIMES: dict[str, type[Runtime]] = {
    "onnx": OnnxRuntime,
    "openvino": OpenVinoRuntime,
    "torch": TorchRuntime,
}


def require(package: str, backend: str) -> Any:
    """Import ``package``, which ``backend`` needs.

    Raises:
        GetiactionError: it is not installed, or cannot be loaded.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise GetiactionError(
            f"backend {backend!r} needs the package {package!r} ({error}): "
            "pip install 'positronic-lightning[export]'"
        ) from error


def openvino() -> Any:
    """Import OpenVINO without its telemetry.

    Raises:
        GetiactionError: it is not installed, or cannot be loaded.
    """
    with _missing("openvino_telemetry"):
        return require("openvino", "openvino")


@contextmanager
def _missing(package: str) -> Iterator[None]:
    # OpenVINO reports its import over the network, from a forked process, unless its telemetry
    # package cannot be imported.
    there = {name: sys.modules[name] for name in (package,) if name in sys.modules}
    # None, although not typed so, makes Python refuse the import.
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]
        sys.modules.update(there)


def _only_float32(backend: str, precision: str) -> None:
    if precision != "float32":
        raise GetiactionError(
            f"backend {backend!r} computes exports in float32, not in {precision!r}; OpenVINO can"
        )


def _choose(device: str, offered: Mapping[str, str], backend: str, *, best: str) -> str:
    if device.lower() == "auto":
        return best if best in offered else "cpu"
    if device.lower() not in offered:
        raise GetiactionError(
            f"backend {backend!r} has no device {device!r} here; it has: {', '.join(offered)}"
        )
    return device.lower()
