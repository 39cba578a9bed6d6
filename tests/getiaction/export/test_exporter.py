import json
import logging
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from getiaction.errors import GetiactionError
from getiaction.export import InferenceModel, export
from getiaction.export.exporter import TOLERANCE
from getiaction.export.manifest import FILES, Manifest
from getiaction.policies.lerobot import LeRobotPolicy
from tests.getiaction.export.policies import ACTIONS, CAMERAS, act, as_tensors, observe
from tests.getiaction.train.runs import POLICIES

# Whoever makes the exports with images, makes them once.
BACKENDS = ["onnx", "openvino", "torch"]


def close(found: NDArray[np.float32], expected: torch.Tensor) -> bool:
    """Within a tenth of the stated tolerance."""
    scale = max(1.0, float(expected.abs().max()))
    return found.shape == expected.shape and bool(
        np.abs(found - expected.numpy()).max() < 0.1 * TOLERANCE * scale
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_export_gives_the_policys_actions(
    backend: str, image_policy: LeRobotPolicy, loaded: Callable[[str], InferenceModel]
) -> None:
    model = loaded(backend)
    for batch in (1, 3):
        for dtype in ("uint8",) if backend == "torch" else ("float32", "uint8"):
            observation = observe(batch, seed=batch, cameras=CAMERAS, dtype=dtype)
            found = model.predict_action_chunk(observation)
            expected = image_policy.predict_action_chunk(as_tensors(observation))
            assert found.dtype == np.float32
            assert close(found, expected)
            assert close(model(as_tensors(observation)), expected)
    other = observe(3, seed=8, cameras=CAMERAS, dtype="uint8")
    moved = model.predict_action_chunk(other) - found
    assert np.abs(moved).max() > 0.1  # the actions follow what is seen


@pytest.mark.parametrize("backend", BACKENDS)
def test_manifest_says_what_was_exported(backend: str, exported: Callable[[str], Path]) -> None:
    directory = exported(backend)
    manifest = Manifest.read(directory)
    assert {file.name for file in directory.iterdir()} == {"manifest.json", *FILES[backend]}
    assert (manifest.policy_type, manifest.backend, manifest.fps) == ("act", backend, 15)
    assert [spec.key for spec in manifest.inputs][2:] == list(CAMERAS)
    assert manifest.outputs[0].shape == (manifest.chunk_size, ACTIONS) == (5, ACTIONS)
    assert manifest.n_action_steps == 3
    assert manifest.check is not None
    assert 0 <= manifest.check.measured < 0.1 * manifest.check.tolerance
    assert manifest.versions["torch"] == torch.__version__


def test_select_action_plays_the_policys_sequence(
    image_policy: LeRobotPolicy, loaded: Callable[[str], InferenceModel]
) -> None:
    model = loaded("onnx")
    model.reset()
    image_policy.reset()
    for step in range(8):  # two queues of three actions and a part of the third
        observation = observe(2, seed=step, cameras=CAMERAS)
        expected = image_policy.select_action(as_tensors(observation))
        assert close(model.select_action(observation), expected)
        if step == 4:
            model.reset()
            image_policy.reset()


def test_temporal_ensembling_is_the_policys(tmp_path: Path) -> None:
    policy = act(temporal_ensemble_coeff=0.3, n_action_steps=1)
    model = InferenceModel(export(policy, tmp_path / "ensemble", "torch"), "torch")
    policy.reset()
    for step in range(9):  # more than the five actions of a chunk
        observation = observe(2, seed=step)
        expected = policy.select_action(as_tensors(observation))
        assert close(model.select_action(observation), expected)


def test_graph_of_uint8_images_takes_no_other(loaded: Callable[[str], InferenceModel]) -> None:
    model = loaded("torch")
    assert [(spec.dtype, spec.range) for spec in model.manifest.inputs][2:] == [
        ("uint8", (0.0, 255.0)),
        ("uint8", (0.0, 255.0)),
    ]
    with pytest.raises(GetiactionError, match="float32; expected uint8"):
        model.predict_action_chunk(observe(2, cameras=CAMERAS))


def test_every_normalisation_is_in_the_graph(tmp_path: Path) -> None:
    modes = {"STATE": "MIN_MAX", "ENV": "QUANTILES", "ACTION": "QUANTILE10", "VISUAL": "IDENTITY"}
    policy = act(use_vae=False, normalization_mapping=modes)
    model = InferenceModel(export(policy, tmp_path / "modes", "torch"), "torch")
    observation = observe(2)
    expected = policy.predict_action_chunk(as_tensors(observation))
    assert close(model.predict_action_chunk(observation), expected)


def test_loaded_policy_is_exported_under_the_names_that_it_is_fed(tmp_path: Path) -> None:
    act().save_pretrained(tmp_path / "native")
    file = tmp_path / "native" / "policy_preprocessor.json"
    pipeline = json.loads(file.read_text())
    pipeline["steps"][0]["config"]["rename_map"] = {"observation.joints": "observation.state"}
    file.write_text(json.dumps(pipeline))
    policy = LeRobotPolicy.from_pretrained(tmp_path / "native")
    model = InferenceModel(export(policy, tmp_path / "x", "torch"), "torch")
    observation = observe(2)
    observation["observation.joints"] = observation.pop("observation.state")
    expected = act().predict_action_chunk(as_tensors(observe(2)))
    assert close(model.predict_action_chunk(observation), expected)


def test_policy_is_left_as_it_was(tmp_path: Path) -> None:
    policy = act()
    policy.train()
    generator, weights = torch.get_rng_state(), policy.state_dict()
    before = {key: value.clone() for key, value in weights.items()}
    export(policy, tmp_path / "x", "torch", check=False)
    assert all(module.training for module in policy.modules())
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(before[key], value) for key, value in policy.state_dict().items())


def test_export_says_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    levels = logging.getLogger("onnxscript").level, logging.getLogger("torch.onnx").level
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        InferenceModel(export(act(), tmp_path / "quiet", opset=18))
    captured = capfd.readouterr()
    assert (captured.out, captured.err, [str(one.message) for one in heard]) == ("", "", [])
    assert [record.name for record in caplog.records if record.levelno >= logging.INFO] == []
    assert levels == (
        logging.getLogger("onnxscript").level,
        logging.getLogger("torch.onnx").level,
    )


def test_state_that_never_varied_keeps_its_digits(tmp_path: Path) -> None:
    directory = export(act(hardly=0.0), tmp_path / "constant", "openvino")
    measured = Manifest.read(directory).check
    assert measured is not None
    assert measured.measured < 1e-5


def test_a_difference_is_refused_and_nothing_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = InferenceModel.predict_action_chunk

    def off(self: InferenceModel, observation: Any) -> Any:
        return predict(self, observation) * np.float32(1.001)

    monkeypatch.setattr(InferenceModel, "predict_action_chunk", off)
    with pytest.raises(GetiactionError, match=r"differ from the policy's by 0\.001 .* at most 0"):
        export(act(), tmp_path / "x", "torch")
    assert list(tmp_path.iterdir()) == []


def test_unchecked_export_says_so(tmp_path: Path) -> None:
    policy = act()
    with torch.no_grad():
        policy.lerobot_policy.model.action_head.bias[0] = torch.nan
    with pytest.raises(GetiactionError, match="own actions are not finite"):
        export(policy, tmp_path / "x", "torch")
    directory = export(policy, tmp_path / "x", "torch", check=False)
    assert Manifest.read(directory).check is None


def test_only_an_export_is_replaced(state_export: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "notes").write_text("keep")
    with pytest.raises(GetiactionError, match="exists; choose another"):
        export(act(), theirs, "torch")
    with pytest.raises(GetiactionError, match="is not an export, so it is not replaced"):
        export(act(), theirs, "torch", overwrite=True)
    assert (theirs / "notes").read_text() == "keep"
    ours = tmp_path / "ours"
    shutil.copytree(state_export, ours)
    with pytest.raises(GetiactionError, match="overwrite=True"):
        export(act(), ours, "torch")
    export(act(), ours, "torch", check=False, fps=2, overwrite=True)
    assert Manifest.read(ours).fps == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours", "theirs"]


@pytest.mark.parametrize("name", ["diffusion", "vqbet", "tdmpc"])
def test_policies_that_draw_noise_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(GetiactionError, match=f"'{name}' cannot be exported: .* knows: act"):
        export(LeRobotPolicy(name, **POLICIES[name]), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_said(tmp_path: Path) -> None:
    with pytest.raises(GetiactionError, match="unknown backend 'tensorrt'.* onnx, openvino, torch"):
        export(act(), tmp_path / "x", "tensorrt")
    with pytest.raises(GetiactionError, match="expected 'float32' or 'uint8'"):
        export(act(), tmp_path / "x", image_dtype="float16")
    with pytest.raises(GetiactionError, match="opset belongs to ONNX"):
        export(act(), tmp_path / "x", "torch", opset=18)
    with pytest.raises(GetiactionError, match="before the policy was made"):
        export(LeRobotPolicy("act"), tmp_path / "x")
    policy = act()
    policy.preprocessor.steps = [*policy.preprocessor.steps, Doubling()]
    with pytest.raises(GetiactionError, match="processor Doubling cannot be exported"):
        export(policy, tmp_path / "x")


class Doubling:
    """A processor that the export has never heard of."""
