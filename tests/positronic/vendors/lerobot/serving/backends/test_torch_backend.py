import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from foundation.errors import UsageError
from positronic.errors import CheckpointError
from positronic.vendors.lerobot import codecs
from positronic.vendors.lerobot.serving.backends.torch_backend import TorchBackend
from positronic.vendors.lerobot.serving.checkpoint_directory import CheckpointDirectory
from positronic.vendors.lerobot.serving.checkpoints import Checkpoint
from tests.positronic.vendors.lerobot.small_policy import make_run, observation

CODEC = codecs.eepose_absolute(image_size=(48, 64))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    run = make_run(tmp_path_factory.mktemp("run"), CODEC, (10000,))
    return CheckpointDirectory(run).checkpoint("010000")


@pytest.fixture(scope="module")
def backend(checkpoint: Checkpoint) -> TorchBackend:
    return TorchBackend(checkpoint, "cpu")


def encoded(*seeds: int) -> dict[str, NDArray[Any]]:
    rows = [CODEC.encode(observation(seed)) for seed in seeds]
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


def test_one_observation_is_prepared_to_the_last_bit_as_lerobot_does(backend: TorchBackend) -> None:
    import torch
    from lerobot.policies.utils import prepare_observation_for_inference

    batch = encoded(1)
    ours = backend.observation(batch)
    arrays = {key: value[0].copy() for key, value in batch.items()}
    theirs = prepare_observation_for_inference(arrays, torch.device("cpu"), "stack")
    del theirs["task"], theirs["robot_type"]
    assert ours.keys() == theirs.keys()
    for key, tensor in ours.items():
        assert torch.equal(tensor, theirs[key])
        assert tensor.stride() == theirs[key].stride()


def test_a_chunk_is_to_the_last_bit_that_of_native_lerobot(
    backend: TorchBackend, checkpoint: Checkpoint
) -> None:
    import torch
    from lerobot.policies.act.modeling_act import ACTPolicy
    from lerobot.policies.factory import make_pre_post_processors
    from lerobot.policies.utils import prepare_observation_for_inference

    native = ACTPolicy.from_pretrained(checkpoint.path)
    pre, post = make_pre_post_processors(native.config, str(checkpoint.path))
    batch = encoded(2)
    arrays = {key: value[0].copy() for key, value in batch.items()}
    observed = prepare_observation_for_inference(arrays, torch.device("cpu"), "")
    with torch.inference_mode():
        expected = post(native.predict_action_chunk(pre(observed))).numpy()
    np.testing.assert_array_equal(backend.predict_chunk(batch), expected)


def test_each_row_of_a_batch_is_what_it_would_be_alone(backend: TorchBackend) -> None:
    together = backend.predict_chunk(encoded(0, 1, 2, 3, 4))
    alone = np.concatenate([backend.predict_chunk(encoded(seed)) for seed in range(5)])
    assert together.shape == alone.shape
    np.testing.assert_allclose(together, alone, atol=1e-5, rtol=0)
    assert np.abs(np.diff(alone, axis=0)).max(axis=(1, 2)).min() > 1e-3


def test_arrays_off_the_wire_are_left_alone(backend: TorchBackend) -> None:
    batch = encoded(3)
    before = {key: value.copy() for key, value in batch.items()}
    for value in batch.values():
        value.flags.writeable = False
    backend.predict_chunk(batch)
    for key, value in before.items():
        np.testing.assert_array_equal(batch[key], value)


def test_it_knows_what_its_weights_weigh(backend: TorchBackend, checkpoint: Checkpoint) -> None:
    size = (checkpoint.path / "model.safetensors").stat().st_size
    assert backend.nbytes == pytest.approx(size, rel=0.02)


def test_bf16_is_computed_and_is_not_far(backend: TorchBackend) -> None:
    rough = backend.at("bf16")
    batch = encoded(0, 1)
    expected, found = backend.predict_chunk(batch), rough.predict_chunk(batch)
    assert found.dtype == np.float32
    difference = float(np.abs(found - expected).max())
    assert 1e-5 < difference < 0.05
    assert rough.tolerance > backend.tolerance


def test_a_damaged_checkpoint_is_one_line_without_paths(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoints/000001/pretrained_model"
    path.parent.mkdir(parents=True)
    shutil.copytree(checkpoint.path, path)
    (path / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(CheckpointError, match="cannot be loaded") as caught:
        TorchBackend(Checkpoint(path, "000001", "run"), "cpu")
    assert str(tmp_path) not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_absent_device_is_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(UsageError, match="--device=cuda:7 cannot be used here"):
        TorchBackend(checkpoint, "cuda:7")
