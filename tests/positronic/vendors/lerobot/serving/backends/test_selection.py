"""Which backend a checkpoint gets, and that its actions are those of the policy."""

import copy
import gc
import shutil
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foundation.errors import MissingDependency, UsageError
from positronic.errors import CheckpointError
from positronic.vendors.lerobot import codecs
from positronic.vendors.lerobot.serving.backends import examples
from positronic.vendors.lerobot.serving.backends.base import TOLERANCES, require_options
from positronic.vendors.lerobot.serving.backends.equality import Reference
from positronic.vendors.lerobot.serving.backends.torch_backend import TorchBackend
from positronic.vendors.lerobot.serving.checkpoint_directory import CheckpointDirectory
from positronic.vendors.lerobot.serving.checkpoints import Checkpoint
from tests.positronic.vendors.lerobot.serving.backends.conftest import (
    CODEC,
    INPUTS,
    Exported,
    choose,
    encoded,
)
from tests.positronic.vendors.lerobot.small_policy import make_run, observation

STATE_CODEC = codecs.eepose_state()
FEATURES = {key: CODEC.features[key] for key in INPUTS}


@pytest.mark.e2e
def test_auto_exports_once_measures_and_remembers(
    exported: Exported, copied: Checkpoint, not_made_again: Callable[[], list[str]]
) -> None:
    assert [line for line in exported.said if "exporting" in line] == [
        "exporting 010000 to OpenVINO (once per checkpoint)",
        "exporting 010000 to ONNX (once per checkpoint)",
    ]
    assert exported.said[-1].startswith(f"010000 runs with {exported.chosen.name}; ms an obs")
    again, said = choose(copied, exported.eager, backend="auto")
    assert (again.name, said, not_made_again()) == (exported.chosen.name, [], [])


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_an_export_acts_as_the_policy_does_alone_and_in_batches(
    exported: Exported, name: str, not_made_again: Callable[[], list[str]]
) -> None:
    backend, said = choose(exported.checkpoint, exported.eager, backend=name)
    assert (backend.name, backend.precision, said, not_made_again()) == (name, "float32", [], [])
    for seeds in ((0,), (1, 2, 3)):
        batch = encoded(*seeds)
        expected = exported.eager.predict_chunk(batch)
        found = backend.predict_chunk(batch)
        assert found.dtype == np.float32
        # The issue's bound, a tenth of what is accepted; the actions' deviation is 0.2.
        np.testing.assert_allclose(found, expected, atol=1e-5 * 0.2, rtol=0)
    weights = exported.eager.nbytes
    assert 0.8 * weights < backend.nbytes < 1.2 * weights


def test_the_weights_in_torch_go_when_an_export_is_chosen(
    exported: Exported, copied: Checkpoint
) -> None:
    eager = TorchBackend(copied, "cpu")
    weights = weakref.ref(eager.policy.model)
    backend, _ = choose(copied, eager, backend="openvino")
    del eager
    gc.collect()
    assert weights() is None
    assert np.isfinite(backend.predict_chunk(encoded(0))).all()


def test_openvino_computes_in_bf16_if_asked_to(
    exported: Exported, not_made_again: Callable[[], list[str]]
) -> None:
    backend, _ = choose(exported.checkpoint, exported.eager, backend="openvino", precision="bf16")
    assert (backend.precision, backend.tolerance, not_made_again()) == ("bf16", 0.05, [])
    compiled: Any = backend._model._runtime.model  # type: ignore[attr-defined]
    assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "bf16"
    reference = Reference(exported.checkpoint, FEATURES, exported.eager)
    assert reference.difference(backend) < backend.tolerance


def test_torch_computes_in_bf16_if_asked_to(exported: Exported) -> None:
    backend, _ = choose(exported.checkpoint, exported.eager, backend="torch", precision="bf16")
    reference = Reference(exported.checkpoint, FEATURES, exported.eager)
    assert (backend.name, backend.precision) == ("torch", "bf16")
    assert 1e-5 < reference.difference(backend) < backend.tolerance


def test_torch_in_float32_is_the_policy_itself(exported: Exported) -> None:
    assert choose(exported.checkpoint, exported.eager)[0] is exported.eager


def test_the_check_sees_one_wrong_action_and_numbers_that_are_none(exported: Exported) -> None:
    reference = Reference(exported.checkpoint, FEATURES, exported.eager)
    assert reference.real
    assert [len(batch["observation.state"]) for batch in reference.batches] == [1, 1, 1, 1, 4]
    wrong = copy.copy(exported.eager)
    for off, (low, high) in {0.0: (0, 0), 1e-3: (1e-4, 1e-2), np.nan: (np.inf, np.inf)}.items():

        def predict(batch: Any, off: float = off) -> Any:
            chunk = exported.eager.predict_chunk(batch)
            chunk[-1, -1, -1] += off
            return chunk

        wrong.predict_chunk = predict  # type: ignore[method-assign,assignment]
        assert low <= reference.difference(wrong) <= high


def test_a_checkpoint_without_examples_is_checked_on_made_up_observations(
    exported: Exported, copied: Checkpoint
) -> None:
    (copied.path / examples.FILE_NAME).unlink()
    backend, _ = choose(copied, exported.eager, backend="onnx")
    reference = Reference(copied, FEATURES, exported.eager)
    assert not reference.real
    assert len(reference.batches) == 8
    assert {batch["observation.images.left"].shape[1:] for batch in reference.batches} == {
        (48, 64, 3)
    }
    assert reference.difference(backend) < 1e-5


def swap_weights(copied: Checkpoint) -> TorchBackend:
    """Put another policy in the checkpoint's place, under exports that look like its own."""
    other = make_run(copied.path.parents[2] / "other", CODEC, (20000,))
    shutil.copy(other / "checkpoints/020000/pretrained_model/model.safetensors", copied.path)
    return TorchBackend(copied, "cpu")


def test_an_export_whose_actions_differ_is_made_anew_or_passed_over(
    copied: Checkpoint,
    not_made_again: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = "positronic.vendors.lerobot.serving.backends.export_cache"
    from positronic.vendors.lerobot.serving.backends.export_cache import _digest

    digest = _digest(copied.path)
    other = swap_weights(copied)
    monkeypatch.setattr(f"{cache}._digest", lambda path: digest)
    with pytest.raises(CheckpointError, match="cannot be exported to ONNX: no export in") as caught:
        choose(copied, other, backend="onnx")
    assert "\n" not in str(caught.value)
    assert not_made_again() == ["onnx"]
    monkeypatch.setattr("positronic.vendors.lerobot.serving.backends.selection.FAST_S", 0.0)
    chosen, said = choose(copied, other, backend="auto")
    assert chosen is other
    assert not_made_again()[1:] != []
    assert any("openvino is passed over" in line for line in said)
    assert any("onnx is passed over" in line for line in said)
    assert not any("\n" in line for line in said)


def test_actions_that_differ_are_refused_when_asked_for(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TOLERANCES, "bf16", 1e-9)
    with pytest.raises(CheckpointError, match="with torch in bf16 differ from the policy's by 0"):
        choose(exported.checkpoint, exported.eager, backend="torch", precision="bf16")


def test_a_quick_policy_stays_with_torch_and_is_not_exported(
    tmp_path: Path, not_made_again: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # However busy this machine is.
    monkeypatch.setattr("positronic.vendors.lerobot.serving.backends.selection.FAST_S", 60.0)
    run = make_run(tmp_path / "run", STATE_CODEC, (10000,))
    checkpoint = CheckpointDirectory(run).checkpoint("010000")
    eager = TorchBackend(checkpoint, "cpu")
    assert choose(checkpoint, eager, backend="auto") == (eager, [])
    assert not_made_again() == []
    # It stays so, though the next measurement might say something else.
    monkeypatch.setattr("positronic.vendors.lerobot.serving.backends.selection.FAST_S", 0.0)
    assert choose(checkpoint, eager, backend="auto") == (eager, [])
    assert not_made_again() == []


def test_on_an_accelerator_torch_stays(exported: Exported) -> None:
    there = copy.copy(exported.eager)
    there.device = "cuda"
    assert choose(exported.checkpoint, there, backend="auto") == (there, [])
    with pytest.raises(UsageError, match="--backend=onnx: exports run on the CPU here, .* cuda"):
        choose(exported.checkpoint, there, backend="onnx")


def test_what_cannot_be_exported_is_served_by_torch_alone(exported: Exported) -> None:
    other = copy.copy(exported.eager)
    other.policy = copy.copy(other.policy)
    other.policy.config = Diffusion(other.policy.config)
    with pytest.raises(UsageError, match=r"\(diffusion\) is served by torch in float32 only"):
        choose(exported.checkpoint, other, backend="onnx")
    assert choose(exported.checkpoint, other, backend="auto") == (other, [])


class Diffusion:
    type = "diffusion"

    def __init__(self, config: Any) -> None:
        self.input_features = config.input_features


def test_a_missing_package_is_named_and_auto_does_without(
    exported: Exported, copied: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr("positronic.vendors.lerobot.serving.backends.selection.FAST_S", 0.0)
    with pytest.raises(
        MissingDependency, match=r"'openvino': pip install 'positronic-lightning\[export\]'"
    ):
        choose(copied, exported.eager, backend="openvino")
    chosen, said = choose(copied, exported.eager, backend="auto")
    assert chosen.name in ("torch", "onnx")
    assert "openvino" not in " ".join(said)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("tensorrt", "float32", False), "--backend=tensorrt is unknown; choose one of auto"),
        (("torch", "fp16", False), "--precision=fp16 is unknown; choose one of float32, bf16"),
        (("onnx", "bf16", False), "--precision=bf16 is nothing that ONNX Runtime has on a CPU"),
        (("onnx", "float32", True), "--compile compiles torch's policy; .*--backend=onnx"),
        (("openvino", "float32", True), "--compile compiles .*--backend=openvino"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    options: tuple[str, str, bool], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        require_options(*options)


@pytest.mark.e2e
def test_a_compiled_policy_acts_as_it_did(tmp_path: Path) -> None:
    # Without images, whose network takes three minutes to compile.
    run = make_run(tmp_path / "run", STATE_CODEC, (10000,))
    checkpoint = CheckpointDirectory(run).checkpoint("010000")
    eager = TorchBackend(checkpoint, "cpu")
    rows = [STATE_CODEC.encode(observation(seed)) for seed in range(3)]
    batch = {
        key: np.stack([row[key] for row in rows]) for key in STATE_CODEC.features if key in rows[0]
    }
    expected = eager.predict_chunk(batch)
    backend, said = choose(checkpoint, eager, backend="auto", compile=True)
    assert (backend.name, said) == ("torch", ["compiling 010000; on a CPU this takes minutes"])
    assert eager.policy.model._compiled_call_impl is not None
    np.testing.assert_allclose(backend.predict_chunk(batch), expected, atol=1e-5)
