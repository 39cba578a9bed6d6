import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lerobot.policies.act.modeling_act import ACTTemporalEnsembler

from foundation.files import sha256_of
from getiaction.errors import GetiactionError
from getiaction.export import InferenceModel
from getiaction.export.inference import ensemble
from getiaction.export.manifest import Manifest
from tests.getiaction.export.policies import CAMERAS, observe

# What a robot's computer would run.
ELSEWHERE = """
import json, sys
import numpy as np
from getiaction.export import InferenceModel

model = InferenceModel.load(sys.argv[1], sys.argv[4])
observation = dict(np.load(sys.argv[2]))
np.save(sys.argv[3], [model.select_action(observation) for _ in range(2)])
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


@pytest.mark.parametrize(
    ("backend", "absent"),
    [
        ("onnx", {"torch", "lerobot", "lightning", "openvino"}),
        ("openvino", {"torch", "lerobot", "lightning", "onnxruntime", "openvino_telemetry"}),
        pytest.param(
            *("torch", {"lerobot", "lightning", "onnxruntime", "openvino"}),
            marks=pytest.mark.e2e,  # torch takes its time to load a program for the first time
        ),
    ],
)
def test_export_runs_where_nothing_but_its_runtime_is_loaded(
    backend: str,
    absent: set[str],
    exported: Callable[[str], Path],
    state_export: Path,
    tmp_path: Path,
) -> None:
    directory = state_export if backend == "torch" else exported(backend)
    observation = observe(1, cameras=CAMERAS, dtype="uint8")
    del observation["task"]
    np.savez(tmp_path / "observation.npz", **observation)
    done = subprocess.run(
        [
            *(sys.executable, "-W", "error", "-c", ELSEWHERE),
            *(directory, tmp_path / "observation.npz", tmp_path / "actions.npy", backend),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    loaded = set(json.loads(done.stdout))
    assert {"numpy", "getiaction"} <= loaded
    assert not loaded & absent
    model = InferenceModel(directory, backend)
    here = [model.select_action(observation) for _ in range(2)]
    np.testing.assert_array_equal(np.load(tmp_path / "actions.npy"), here)


def test_wrong_observations_are_refused(loaded: Callable[[str], InferenceModel]) -> None:
    model = loaded("onnx")
    good = observe(2, cameras=CAMERAS)
    left, state = CAMERAS[0], "observation.state"
    wrong = [
        ({key: good[key] for key in good if key != left}, f"lacks {left}; it has: task, "),
        ({}, "lacks observation.state, .*; it has: nothing"),
        (good | {state: good[state][0]}, r"state has the shape \(8,\); expected \(B, 8\)"),
        (good | {state: good[state][:0]}, r"\(0, 8\); expected \(B, 8\), B > 0"),
        (good | {left: good[left].swapaxes(1, 3)}, r"\(2, 64, 32, 3\); expected \(B, 3, 32, 64\)"),
        (good | {state: good[state].astype(float)}, "dtype float64; expected float32"),
        (good | {left: good[left].astype(float)}, r"float32 in \[0, 1\] or uint8 in 0..255"),
        (good | {left: good[left] * 255}, r"values from 0 to 255; expected float32 in \[0, 1\]"),
        (good | {left: good[left] * np.nan}, "values from nan to nan"),
        (good | {state: good[state][:1]}, "different sizes .*state: 1, .*left: 2"),
        (good | {state: torch.zeros(2, 8, requires_grad=True)}, "Tensor that numpy cannot take"),
    ]
    for observation, message in wrong:
        with pytest.raises(GetiactionError, match=message) as caught:
            model.predict_action_chunk(observation)
        assert "\n" not in str(caught.value)


def test_changed_files_are_refused(exported: Callable[[str], Path], tmp_path: Path) -> None:
    directory = tmp_path / "copy"
    shutil.copytree(exported("openvino"), directory)
    weights = directory / "model.bin"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(GetiactionError, match="model.bin is not what was exported: its sha256 is"):
        InferenceModel(directory)
    weights.unlink()
    with pytest.raises(GetiactionError, match="model.bin is missing"):
        InferenceModel(directory)


def test_what_torch_would_run_is_loaded_only_when_asked_for(
    state_export: Path, tmp_path: Path
) -> None:
    """A file for torch holds expressions that are evaluated, and may hold pickles."""
    copy = tmp_path / "copy"
    shutil.copytree(state_export, copy)
    owned = tmp_path / "owned"
    with zipfile.ZipFile(copy / "model.pt2") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    payload = pickle.dumps(_Planted(str(owned)))
    with zipfile.ZipFile(copy / "model.pt2", "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(name, payload if name.endswith(".pt") else content)
    manifest = Manifest.read(copy)
    digest = sha256_of(copy / "model.pt2")
    replace(manifest, files={"model.pt2": digest}).write(copy)
    with pytest.raises(GetiactionError, match="give backend='torch' if you trust whoever made it"):
        InferenceModel(copy)
    assert not owned.exists()


class _Planted:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def test_backend_is_the_exports_own(state_export: Path) -> None:
    model = InferenceModel.load(state_export, backend="torch", device="CPU")
    assert model.manifest.backend == "torch"
    with pytest.raises(GetiactionError, match="an export for 'torch', not for 'onnx'"):
        InferenceModel(state_export, backend="onnx")


@pytest.mark.parametrize("backend", ["onnx", "openvino", "torch"])
def test_unknown_device_is_refused(backend: str, exported: Callable[[str], Path]) -> None:
    with pytest.raises(GetiactionError, match=f"'{backend}' has no device 'abacus' here; .*cpu"):
        InferenceModel(exported(backend), backend, device="abacus")


@pytest.mark.parametrize("coefficient", [0.0, 0.3, -0.3])
def test_ensemble_is_lerobots(coefficient: float) -> None:
    theirs = ACTTemporalEnsembler(coefficient, chunk_size=4)
    chunks = list(np.random.default_rng(0).normal(size=(9, 2, 4, 3)).astype(np.float32))
    for now, chunk in enumerate(chunks):
        expected = theirs.update(torch.from_numpy(chunk)).numpy()
        found = ensemble(chunks[max(0, now - 3) : now + 1], coefficient)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
