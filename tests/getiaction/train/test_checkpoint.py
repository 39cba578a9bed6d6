from pathlib import Path

import pytest
import torch
from lerobot.datasets import LeRobotDatasetMetadata
from lerobot.policies import make_pre_post_processors
from lerobot.policies.act.modeling_act import ACTPolicy

from getiaction.manifest import MANIFEST, faults, remove_unfinished
from getiaction.policies.lerobot import ACT
from tests.getiaction.train.runs import SMALL, train_ours


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
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        train_ours(state_root, tmp_path, steps=2, complete=fail)
    checkpoints = tmp_path / "checkpoints"
    assert [p.name for p in checkpoints.iterdir()] == [".unfinished-000002"]
    remove_unfinished(checkpoints)
    assert list(checkpoints.iterdir()) == []
