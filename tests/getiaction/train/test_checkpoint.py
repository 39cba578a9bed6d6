import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from lerobot.datasets import LeRobotDatasetMetadata
from lerobot.policies import make_pre_post_processors
from lerobot.policies.act.modeling_act import ACTPolicy
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from foundation.manifest import MANIFEST, faults
from getiaction.errors import GetiactionError
from getiaction.policies.lerobot import ACT
from tests.getiaction.train.runs import SMALL, train_ours
from tests.getiaction.train.small import data, policy, trainer


def test_layout_is_lerobots(state_root: Path, tmp_path: Path) -> None:
    train_ours(state_root, tmp_path, steps=5, save_freq=2)
    checkpoints = tmp_path / "checkpoints"
    assert sorted(p.name for p in checkpoints.iterdir()) == ["000002", "000004", "000005", "last"]
    assert (checkpoints / "last").readlink() == Path("000005")
    assert {p.name for p in (checkpoints / "last").iterdir()} == {
        "pretrained_model",
        "training_state",
        MANIFEST,
    }
    assert all(faults(path) == [] for path in checkpoints.iterdir())
    assert {p.name for p in (checkpoints / "last" / "pretrained_model").iterdir()} == {
        "config.json",
        "model.safetensors",
        "policy_postprocessor.json",
        "policy_postprocessor_step_0_unnormalizer_processor.safetensors",
        "policy_preprocessor.json",
        "policy_preprocessor_step_3_normalizer_processor.safetensors",
        "train_config.json",
    }
    assert {p.name for p in (checkpoints / "last" / "training_state").iterdir()} == {
        "optimizer_param_groups.json",
        "optimizer_state.safetensors",
        "rng_state.safetensors",
        "training_step.json",
    }


def test_native_lerobot_loads_it_and_acts_the_same(state_root: Path, tmp_path: Path) -> None:
    meta = LeRobotDatasetMetadata("local/small", root=state_root)
    module = ACT(**SMALL).create(meta)
    module.lerobot_policy.eval()
    module.save_pretrained(tmp_path)
    policy = ACTPolicy.from_pretrained(tmp_path)
    before, after = make_pre_post_processors(policy.config, pretrained_path=str(tmp_path))
    observation = {
        "observation.state": torch.linspace(-1, 5, 8),
        "observation.environment_state": torch.linspace(-9, 0, 10),
    }
    native = after(policy.predict_action_chunk(before(dict(observation))))
    prepared = module.preprocessor(dict(observation))
    ours = module.postprocessor(module.lerobot_policy.predict_action_chunk(prepared))
    assert torch.equal(ours, native)
    # Numbers of a mean of -5 and a deviation of 2 reach the network as standard ones.
    assert prepared["observation.environment_state"].abs().max() < 4


def test_a_failing_checkpoint_leaves_no_half_of_one(state_root: Path, tmp_path: Path) -> None:
    def fail(pretrained: Path) -> None:
        if "000004" in str(pretrained):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(pretrained))

    with pytest.raises(GetiactionError) as error:
        train_ours(state_root, tmp_path, steps=4, save_freq=2, complete=fail)
    assert "step 4 could not be written to" in str(error.value)
    assert "No space left on device" in str(error.value)
    assert str(error.value).endswith("the last good checkpoint is " + str(good := last(tmp_path)))
    checkpoints = tmp_path / "checkpoints"
    assert sorted(p.name for p in checkpoints.iterdir()) == ["000002", "last"]
    assert (good.name, faults(good)) == ("000002", [])


def last(run_dir: Path) -> Path:
    return (run_dir / "checkpoints/last").resolve()


def fill(directory: Path, spare: int) -> None:
    """Leave so many bytes in a file system."""
    free = shutil.disk_usage(directory).free
    (directory / "filler").write_bytes(bytes(free - spare))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB, where this process may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run(
            [mount, "-t", "tmpfs", "-o", "size=8m", "tmpfs", place], capture_output=True
        ).returncode
    ):
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


# So little that not even the weights fit, or all but the last files.
@pytest.mark.parametrize("spare", [4096, 120_000])
def test_a_disk_that_is_full_costs_that_checkpoint_only(
    state_root: Path, small_disk: Path, spare: int
) -> None:
    def use_up(pretrained: Path) -> None:
        if "000002" in str(pretrained):
            fill(small_disk, spare)

    run_dir = small_disk / "run"
    with pytest.raises(GetiactionError, match=r"could not be written to .*No space left") as error:
        train_ours(state_root, run_dir, steps=4, save_freq=1, complete=use_up)
    assert "\n" not in str(error.value)
    (small_disk / "filler").unlink()
    found = sorted(p.name for p in (run_dir / "checkpoints").iterdir())
    assert found in (["000001", "last"], ["000001", "000002", "last"])
    assert faults(last(run_dir)) == []
    assert last(run_dir).name == found[-2]


def test_lightnings_checkpoints_on_a_disk_that_is_full(
    state_root: Path, small_disk: Path, tmp_path: Path
) -> None:
    class UseUp(Callback):
        def on_train_batch_start(self, trainer: Any, *rest: Any) -> None:
            if trainer.global_step == 2:
                fill(small_disk, 4096)

    keep = ModelCheckpoint(small_disk, "{step}", every_n_train_steps=1, save_last=True)
    fitted = trainer(small_disk, callbacks=[UseUp(), keep], enable_checkpointing=True)
    with pytest.raises(GetiactionError, match=r"step 3 could not be written to .*No space left"):
        fitted.fit(policy(), data(state_root))
    kept = torch.load(small_disk / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 2
    # What others write later does not wait for the end of that.
    with fsspec.open(f"{tmp_path}/later", "wb") as later:
        later.write(b"x")
    assert (tmp_path / "later").read_bytes() == b"x"
