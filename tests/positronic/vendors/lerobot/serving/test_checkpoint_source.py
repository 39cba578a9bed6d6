from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foundation import storage
from positronic.errors import CheckpointError, ContractError
from positronic.vendors.lerobot import codecs
from positronic.vendors.lerobot.serving.checkpoint_directory import CheckpointDirectory
from positronic.vendors.lerobot.serving.checkpoint_source import CheckpointSource
from positronic.vendors.lerobot.serving.policy import load_policy
from tests.positronic.vendors.lerobot.small_policy import make_run, observation
from tests.s3 import Faulty


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "stacking", codecs.eepose_state())


def test_a_checkpoint_in_s3_is_fetched_when_it_is_asked_for_and_it_alone(
    s3: Any, run: Path, faulty: Faulty
) -> None:
    place = "s3://bucket/runs/stacking"
    sizes = {}
    for step in ("010000", "020000"):
        local = run / "checkpoints" / step
        state = local / "training_state/optimizer_state.safetensors"
        state.parent.mkdir()
        state.write_bytes(bytes(1000))
        storage.publish(local, f"{place}/checkpoints/{step}")
        sizes[step] = (local / "pretrained_model/model.safetensors").stat().st_size
    for name in storage.listing(run / "checkpoints/020000"):
        key = f"runs/stacking/checkpoints/015000/{name}"
        s3.upload_file(str(run / "checkpoints/020000" / name), "bucket", key)
    source = CheckpointSource(CheckpointDirectory(place), None, "cpu")
    faulty.requests.clear()
    assert source.ids() == ["010000", "015000", "020000"]
    for step, as_large_as in (("010000", "010000"), ("015000", "020000"), ("020000", "020000")):
        assert source.nbytes(step) == sizes[as_large_as]
    assert faulty.count("GET", "model.safetensors") == 0
    said: list[str] = []
    model = source.load(source.resolve("20000"), said.append)
    assert faulty.count("GET", "/020000/pretrained_model/model.safetensors") == 1
    assert faulty.count("GET", "model.safetensors") == 1
    assert faulty.count("GET", "/training_state/") == 0
    native = load_policy(checkpoints_dir=str(run), device="cpu")
    served, expected = (one.new_session().infer(observation()) for one in (model, native))
    for one, other in zip(served, expected, strict=True):
        np.testing.assert_array_equal(one["robot_command"]["pose"], other["robot_command"]["pose"])
        assert one["target_grip"] == other["target_grip"]


def test_weights_that_are_not_there_are_named_before_there_is_room_for_them(run: Path) -> None:
    source = CheckpointSource(CheckpointDirectory(run), None, "cpu")
    with pytest.raises(
        CheckpointError,
        match=r"stacking/checkpoints/030000 is incomplete: pretrained_model/model\.safetensors",
    ):
        source.nbytes("030000")


def test_another_codec_is_refused_for_every_checkpoint(run: Path) -> None:
    source = CheckpointSource(CheckpointDirectory(run), codecs.joints_absolute(), "cpu")
    with pytest.raises(ContractError, match="trained with codec 'eepose_state', not with --codec"):
        source.load("010000", print)
