import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from getiaction.errors import GetiactionError
from getiaction.export import InferenceModel, export
from getiaction.export.runtimes import OpenVinoRuntime
from tests.getiaction.export.policies import act


def test_openvino_computes_in_float32(exported: Callable[[str], Path]) -> None:
    compiled: Any = OpenVinoRuntime(exported("openvino"), "cpu").model
    assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"


@pytest.mark.e2e
@pytest.mark.parametrize("backend", ["onnx", "openvino", "torch"])
def test_no_file_of_an_export_stays_mapped_into_memory(
    exported: Callable[[str], Path], backend: str
) -> None:
    """One that is cut short meanwhile would end the process."""
    model = InferenceModel(exported(backend), backend, device="cpu")
    assert str(exported(backend)) not in Path("/proc/self/maps").read_text()
    assert model.manifest.backend == backend


def test_openvino_computes_in_bf16_where_that_is_asked_for(
    exported: Callable[[str], Path],
) -> None:
    model = InferenceModel(exported("openvino"), device="cpu", precision="bf16", threads=1)
    compiled: Any = model._runtime.model  # type: ignore[attr-defined]
    assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "bf16"
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
    with pytest.raises(GetiactionError, match="precision is 'fp8'; expected 'float32' or 'bf16'"):
        InferenceModel(exported("openvino"), precision="fp8")


def test_onnxruntime_takes_the_threads_it_is_given_and_does_not_let_them_spin(
    exported: Callable[[str], Path],
) -> None:
    model = InferenceModel(exported("onnx"), device="cpu", threads=1)
    options: Any = model._runtime.session.get_session_options()  # type: ignore[attr-defined]
    assert options.intra_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_only_openvino_has_bf16(
    backend: str, exported: Callable[[str], Path], state_export: Path
) -> None:
    directory = state_export if backend == "torch" else exported(backend)
    with pytest.raises(GetiactionError, match=f"'{backend}' computes exports in float32, not in"):
        InferenceModel(directory, backend, precision="bf16")


def test_openvino_keeps_weights_in_float32(exported: Callable[[str], Path]) -> None:
    text = (exported("openvino") / "model.xml").read_text()
    assert 'element_type="f32"' in text
    assert "f16" not in text


@pytest.mark.parametrize(
    ("backend", "package"), [("onnx", "onnxruntime"), ("openvino", "openvino"), ("torch", "torch")]
)
def test_missing_runtime_names_the_extra(
    backend: str, package: str, exported: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = exported(backend)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        GetiactionError, match=rf"'{backend}' needs .* '{package}' .*positronic-lightning\[export\]"
    ):
        InferenceModel(directory, backend)


@pytest.mark.parametrize(
    ("backend", "package"), [("onnx", "onnxscript"), ("openvino", "openvino"), ("onnx", "onnx")]
)
def test_missing_package_is_said_before_any_work(
    backend: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = act()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(GetiactionError, match=rf"'{package}' .*positronic-lightning\[export\]"):
        export(policy, tmp_path / "x", backend)
    assert list(tmp_path.iterdir()) == []
