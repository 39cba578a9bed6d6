"""What a checkpoint carries of its dataset, from the training that writes it to the check."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from foundation.manifest import faults
from positronic.vendors.lerobot import codecs
from positronic.vendors.lerobot.serving.backends import examples
from positronic.vendors.lerobot.serving.checkpoint_directory import CheckpointDirectory
from tests.positronic.vendors.lerobot.small_dataset import write_dataset
from tests.positronic.vendors.lerobot.small_policy import observation
from tests.positronic.vendors.lerobot.training.training_commands import command, flags

CODEC = codecs.eepose_absolute(image_size=(48, 64))
ROWS = 9


@pytest.fixture(scope="module")
def encoded() -> list[dict[str, NDArray[Any]]]:
    return [CODEC.encode(observation(seed)) for seed in range(ROWS)]


def keys_of(rows: list[dict[str, NDArray[Any]]]) -> list[str]:
    return [key for key in rows[0] if key.startswith("observation")]


@pytest.mark.parametrize("videos", [False, True])
def test_examples_of_a_dataset_are_what_the_codec_had_made(
    encoded: list[dict[str, NDArray[Any]]], videos: bool, tmp_path: Path
) -> None:
    from lerobot.datasets import LeRobotDataset
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.utils.random_utils import serialize_rng_state

    from getiaction.data import LeRobotDataModule

    root = tmp_path / "dataset"
    features = {
        name: {**feature, "dtype": "image"} if feature["dtype"] == "video" else feature
        for name, feature in CODEC.features.items()
    }
    written = LeRobotDataset.create(
        *("local/x", 15, CODEC.features if videos else features), root=root, use_videos=videos
    )
    for row in encoded:
        written.add_frame({**row, "action": np.zeros(8, np.float32), "task": "stack"})
    written.save_episode()
    written.finalize()
    data = LeRobotDataModule(root=root)
    data.prepare(ACTConfig(chunk_size=4, n_action_steps=4))
    keys = keys_of(encoded)
    before = serialize_rng_state()
    examples.save(tmp_path, data.train_dataset, keys)
    after = serialize_rng_state()
    assert {name: (after[name] == before[name]).all() for name in before} == dict.fromkeys(
        before, True
    )
    found = examples.load(tmp_path, {key: CODEC.features[key] for key in keys})
    assert found is not None
    for key in keys:
        expected = np.stack([encoded[row][key] for row in (0, 3, 5, 8)])
        assert found[key].dtype == expected.dtype
        if videos and expected.ndim == 4:
            # Noise does not survive a video; where it lies does.
            assert np.corrcoef(found[key].ravel(), expected.ravel())[0, 1] > 0.5
        else:
            np.testing.assert_array_equal(found[key], expected)


def test_training_puts_the_same_examples_under_the_seal_of_each_checkpoint(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "dataset")
    run = ("--steps=3", "--save_freq=2")
    assert command(*flags(root, tmp_path, *run)) == 0
    # A server that began meanwhile has put its exports beside; that is nothing to the training.
    served = tmp_path / "run/checkpoints/000003/exports/onnx-0123456789ab/model.onnx"
    served.parent.mkdir(parents=True)
    served.write_bytes(b"an export")
    assert command(*flags(root, tmp_path, "--steps=4", "--save_freq=2", "--resume=True")) == 0
    runs = CheckpointDirectory(tmp_path / "run")
    assert runs.ids() == ["000002", "000003", "000004"]
    files = [runs.checkpoint(name).path / examples.FILE_NAME for name in runs.ids()]
    assert len({file.read_bytes() for file in files}) == 1
    contract = runs.checkpoint("000002").verify()
    keys = ("observation.state", "observation.environment_state")
    found = examples.load(files[0].parent, {key: contract.features[key] for key in keys})
    assert found is not None
    assert {key: len(rows) for key, rows in found.items()} == dict.fromkeys(keys, 4)
    # Of both episodes: the second begins at row 12.
    assert len(np.unique(found["observation.state"], axis=0)) == 4
    assert [faults(file.parents[1]) for file in files] == [[], [], []]
    assert served.read_bytes() == b"an export"
    files[0].write_bytes(files[0].read_bytes()[:-1])
    assert examples.FILE_NAME in faults(files[0].parents[1])[0]


def test_unsuitable_examples_are_no_examples(
    encoded: list[dict[str, NDArray[Any]]], tmp_path: Path
) -> None:
    keys = keys_of(encoded)
    features = {key: CODEC.features[key] for key in keys}
    good = {key: np.stack([row[key] for row in encoded]) for key in keys}
    assert examples.load(tmp_path, features) is None
    save_file(good, tmp_path / examples.FILE_NAME)
    assert examples.load(tmp_path, features) is not None
    image, state = "observation.images.left", "observation.state"
    for changed in (
        {key: good[key] for key in keys if key != image},
        good | {image: good[image].astype(np.float32)},
        good | {image: np.ascontiguousarray(good[image][:, ::2])},
        good | {state: np.ascontiguousarray(good[state][:-1])},
    ):
        save_file(changed, tmp_path / examples.FILE_NAME)
        assert examples.load(tmp_path, features) is None
    (tmp_path / examples.FILE_NAME).write_bytes(b"no safetensors")
    assert examples.load(tmp_path, features) is None
