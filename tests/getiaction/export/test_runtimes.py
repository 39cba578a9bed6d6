import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from getiaction.errors import GetiactionError
from getiaction.export import InferenceModel, export
from getiaction.export.runtimes import OpenVinoRuntime
from tests.getiaction.export.policies import act

pytestmark = pytest.mark.xdist_group("export")


def test_openvino_computes_in_float32(exported: Callable[[str], Path]) -> None:
    compiled: Any = OpenVinoRuntime(exported("openvino"), "cpu").model
    assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"


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
        InferenceModel(directory)


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
