from pathlib import Path
from typing import Any

import pytest
import torch

from getiaction.data import LeRobotDataModule
from getiaction.errors import GetiactionError
from getiaction.policies import lerobot
from getiaction.policies.lerobot import ACT, Diffusion, LeRobotPolicy
from tests.getiaction.policies.lerobot.small import NAMES, Native, actions, make, trainer
from tests.getiaction.train.runs import POLICIES

CLASSES = {"act": "ACT", "diffusion": "Diffusion", "vqbet": "VQBeT", "tdmpc": "TDMPC"}


def fitted(root: Path, run_dir: Path, name: str, **options: Any) -> tuple[LeRobotPolicy, Path]:
    """Train lazily for two steps and save; the dataset is left behind."""
    torch.manual_seed(1)
    policy = LeRobotPolicy(name, **POLICIES[name])
    run = trainer(run_dir, **options)
    run.fit(policy, LeRobotDataModule(root=root, train_batch_size=4))
    if name == "vqbet":
        policy.lerobot_policy.vqbet.action_head.vqvae_model.discretized.fill_(True)
    path = run_dir / "policy.ckpt"
    run.save_checkpoint(path)
    return policy, path


@pytest.fixture(scope="module")
def act(camera_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[LeRobotPolicy, Path]:
    return fitted(camera_root, tmp_path_factory.mktemp("act"), "act")


@pytest.mark.parametrize("name", NAMES)
def test_actions_survive_each_way_of_saving(
    camera_root: Path, reward_root: Path, tmp_path: Path, name: str
) -> None:
    policy, path = fitted(reward_root if name == "tdmpc" else camera_root, tmp_path, name)
    expected = actions(policy)
    assert expected.std() > 0
    # Nothing but plain data: torch refuses anything else.
    torch.load(path, weights_only=True)
    assert torch.equal(actions(LeRobotPolicy.load_from_checkpoint(path)), expected)
    typed = getattr(lerobot, CLASSES[name])
    again = typed.load_from_checkpoint(path, weights_only=True)
    assert type(again) is typed
    assert torch.equal(actions(again), expected)
    again.save_pretrained(tmp_path / "native")
    assert torch.equal(actions(Native(tmp_path / "native")), expected)
    back = typed.from_pretrained(tmp_path / "native")
    assert type(back) is typed
    assert torch.equal(actions(back), expected)
    assert torch.equal(actions(LeRobotPolicy.from_pretrained(path)), expected)


def test_settings_survive(camera_root: Path, tmp_path: Path) -> None:
    policy, path = fitted(camera_root, tmp_path, "diffusion")
    loaded = LeRobotPolicy.load_from_checkpoint(path)
    assert loaded.config == policy.config
    assert loaded.optimizer_config == policy.optimizer_config
    assert loaded.scheduler_config == policy.scheduler_config
    assert not loaded.training


def test_statistics_are_in_the_checkpoint(act: tuple[LeRobotPolicy, Path]) -> None:
    entry = torch.load(act[1], weights_only=True)["getiaction"]
    for processor in ("preprocessor", "postprocessor"):
        (tensors,) = entry[processor]["state"].values()
        assert {"action.mean", "observation.state.std"} <= tensors.keys()


def test_a_fit_goes_on_from_a_checkpoint(camera_root: Path, tmp_path: Path) -> None:
    _, path = fitted(camera_root, tmp_path, "diffusion")
    resumed = LeRobotPolicy("diffusion", **POLICIES["diffusion"])
    run = trainer(tmp_path, max_steps=4)
    run.fit(resumed, LeRobotDataModule(root=camera_root, train_batch_size=4), ckpt_path=path)
    assert run.global_step == 4
    # Adam has counted on: its state was restored too.
    (state,) = {int(s["step"]) for s in run.optimizers[0].state.values()}
    assert state == 4


@pytest.mark.parametrize("given", ["data", "loader"])
def test_predictions_of_a_policy_made_only_now(
    camera_root: Path, tmp_path: Path, act: tuple[LeRobotPolicy, Path], given: str
) -> None:
    """With other statistics at hand, those of the checkpoint are taken."""
    policy, path = act
    data = LeRobotDataModule(root=camera_root, train_batch_size=4)
    expected = trainer(tmp_path).predict(policy, data)
    other = LeRobotDataModule(root=camera_root, train_batch_size=4)
    for stats in other.meta.stats.values():
        stats["mean"] = stats["mean"] + 1
    fresh = ACT(**POLICIES["act"])
    if given == "data":
        got = trainer(tmp_path).predict(fresh, other, ckpt_path=path)
    else:
        got = trainer(tmp_path).predict(fresh, data.predict_dataloader(), ckpt_path=path)
    assert len(expected) == len(got) > 1
    for a, b in zip(expected, got, strict=True):
        assert torch.equal(a, b)


def test_another_network_is_refused(
    camera_root: Path, tmp_path: Path, act: tuple[LeRobotPolicy, Path]
) -> None:
    wider = ACT(**{**POLICIES["act"], "dim_feedforward": 64})
    with pytest.raises(GetiactionError, match="dim_feedforward was 32 and is 64"):
        trainer(tmp_path).predict(
            wider, LeRobotDataModule(root=camera_root, train_batch_size=4), ckpt_path=act[1]
        )


def test_a_class_refuses_another_policy(tmp_path: Path, act: tuple[LeRobotPolicy, Path]) -> None:
    policy, path = act
    with pytest.raises(GetiactionError, match="holds a policy 'act', not 'diffusion'"):
        Diffusion.load_from_checkpoint(path)
    policy.save_pretrained(tmp_path / "native")
    with pytest.raises(GetiactionError, match="holds a policy 'act', not 'diffusion'"):
        Diffusion.from_pretrained(tmp_path / "native")


def test_a_checkpoint_of_something_else(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "epoch": 3}, tmp_path / "other.ckpt")
    with pytest.raises(GetiactionError, match=r"not written by a LeRobotPolicy.*state_dict, epoch"):
        LeRobotPolicy.load_from_checkpoint(tmp_path / "other.ckpt")


@pytest.mark.parametrize("bytes_left", [0, 10, 5_000, 200_000])
def test_a_cut_checkpoint_is_named(
    tmp_path: Path, act: tuple[LeRobotPolicy, Path], bytes_left: int
) -> None:
    whole = act[1].read_bytes()
    assert len(whole) > 200_000
    (tmp_path / "cut.ckpt").write_bytes(whole[:bytes_left])
    with pytest.raises(GetiactionError, match=r"cut\.ckpt cannot be read as a Lightning"):
        LeRobotPolicy.load_from_checkpoint(tmp_path / "cut.ckpt")


def test_what_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(GetiactionError, match=r"there is no checkpoint .*none\.ckpt"):
        LeRobotPolicy.load_from_checkpoint(tmp_path / "none.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(GetiactionError, match="holds a list"):
        LeRobotPolicy.load_from_checkpoint(tmp_path / "list.ckpt")


def test_a_backbone_is_not_fetched_to_be_overwritten(
    camera_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make(camera_root, "act", vision_backbone="resnet18")
    policy.config.pretrained_backbone_weights = "ResNet18_Weights.IMAGENET1K_V1"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    policy.save_pretrained(tmp_path)
    loaded = LeRobotPolicy.from_pretrained(tmp_path)
    assert loaded.config == policy.config
    assert torch.equal(actions(loaded), actions(policy))
