import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from foundation.files import sha256_of
from getiaction.errors import GetiactionError
from getiaction.export.manifest import FORMAT_VERSION, Check, Manifest, Spec
from tests.mutations import mutations

MANIFEST = Manifest(
    policy_type="act",
    backend="onnx",
    inputs=(Spec("observation.images.top", (3, 4, 4), range=(0.0, 1.0)),),
    outputs=(Spec("action", (5, 6)),),
    chunk_size=5,
    n_action_steps=3,
    temporal_ensemble_coeff=None,
    fps=30.0,
    check=Check(1e-4, 3e-7, 8),
    versions={"torch": "2.11.0"},
    files={"model.onnx": "0" * 64},
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    for manifest in (MANIFEST, replace(MANIFEST, check=None, fps=None, source="0abc")):
        manifest.write(tmp_path)
        assert Manifest.read(tmp_path) == manifest


def test_what_is_no_export_is_refused(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "absent"):
        with pytest.raises(GetiactionError, match=r"is not an export: it has no manifest\.json"):
            Manifest.read(directory)


def test_newer_format_is_refused(tmp_path: Path) -> None:
    replace(MANIFEST, format_version=FORMAT_VERSION + 1).write(tmp_path)
    with pytest.raises(GetiactionError, match="of format 2; this version reads up to 1: update"):
        Manifest.read(tmp_path)


def test_damaged_manifest_is_refused(tmp_path: Path) -> None:
    MANIFEST.write(tmp_path)
    file = tmp_path / "manifest.json"
    whole = json.loads(file.read_text())
    damaged = [
        file.read_text()[:-20],
        "[]",
        json.dumps({key: value for key, value in whole.items() if key != "fps"}),
        json.dumps(whole | {"backend": "abacus"}),
        json.dumps(whole | {"inputs": [{"key": "observation.state"}]}),
        json.dumps(whole | {"surprise": 1}),
        "[" * 100_000,
        json.dumps(whole | {"chunk_size": 0}),
        json.dumps(whole | {"n_action_steps": 6}),
        json.dumps(whole | {"n_action_steps": 0}),
        json.dumps(whole | {"fps": float("nan")}),
        json.dumps(whole | {"fps": -30}),
        json.dumps(whole | {"files": {"../model.onnx": "0" * 64}}),
        json.dumps(whole | {"files": {"model.onnx": "0" * 63}}),
        json.dumps(whole | {"check": "yes"}),
        json.dumps(whole | {"backend": ["onnx"]}),
        json.dumps(whole | {"inputs": [whole["inputs"][0] | {"shape": [3, -4, 4]}]}),
        json.dumps(whole | {"inputs": [whole["inputs"][0] | {"dtype": "object"}]}),
        json.dumps(whole | {"policy_type": "\ud800"}),
    ]
    for text in damaged:
        file.write_text(text)
        with pytest.raises(GetiactionError, match=r"manifest\.json.*; export again$"):
            Manifest.read(tmp_path)


def test_mutations_end_in_the_reader(tmp_path: Path) -> None:
    MANIFEST.write(tmp_path)
    file = tmp_path / "manifest.json"
    read, lines = 0, list[str]()
    for content in mutations(json.loads(file.read_text()), 10_000):
        file.write_bytes(content)
        try:
            Manifest.read(tmp_path)
        except GetiactionError as error:
            lines.append(str(error))
            continue
        read += 1
    assert all(line.isprintable() for line in lines)
    assert 0 < read < 9_000


def test_verify_names_what_differs(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    with pytest.raises(GetiactionError, match="model.onnx is missing"):
        MANIFEST.verify(tmp_path)
    file.write_bytes(b"weights")
    with pytest.raises(GetiactionError, match="expected 000000000000…"):
        MANIFEST.verify(tmp_path)
    replace(MANIFEST, files={"model.onnx": sha256_of(file)}).verify(tmp_path)


def test_uint8_image_is_scaled_as_the_policy_scales_it() -> None:
    (spec,) = MANIFEST.inputs
    image = np.arange(48, dtype=np.uint8).reshape(1, 3, 4, 4)
    accepted = spec.accept(image)
    assert accepted.dtype == np.float32
    assert accepted.max() == np.float32(47) / np.float32(255)
