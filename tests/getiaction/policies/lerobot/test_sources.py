import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from getiaction.data import LeRobotDataModule
from getiaction.errors import GetiactionError
from getiaction.policies.lerobot import ACT, TDMPC, LeRobotPolicy
from tests.getiaction.policies.lerobot.small import (
    NAMES,
    actions,
    dataset,
    make,
    metadata,
    trainer,
)
from tests.getiaction.train.runs import POLICIES

# Lightning says so of every fit with a loader alone.
pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step`")


@pytest.mark.parametrize("name", NAMES)
def test_a_plain_loader_trains_any_policy(
    camera_root: Path, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "getiaction")
    source = dataset(camera_root)
    policy = LeRobotPolicy(name, **POLICIES[name])
    run = trainer(tmp_path)
    run.fit(policy, train_dataloaders=DataLoader(source, batch_size=4))
    assert run.global_step == 2
    assert "takes several frames a sample" in caplog.text
    assert len(source[0]["action"]) == len(policy.config.action_delta_indices)


def test_it_trains_on_the_same_numbers_as_the_data_module(
    camera_root: Path, tmp_path: Path
) -> None:
    """ImageNet's statistics, deltas and frames: only the order of samples is the loader's own."""
    losses = []
    for source in ("loader", "data"):
        torch.manual_seed(2)
        policy = ACT(**POLICIES["act"])
        run = trainer(tmp_path, max_steps=1)
        # All of the dataset in one batch, so that its order is nearly all the same.
        if source == "loader":
            run.fit(policy, train_dataloaders=DataLoader(dataset(camera_root), batch_size=17))
        else:
            run.fit(policy, LeRobotDataModule(root=camera_root, train_batch_size=17))
        losses.append(run.callback_metrics["train/l1_loss"].item())
        mean = policy.preprocessor.steps[-1].stats["observation.images.top"]["mean"]
        assert torch.as_tensor(mean).ravel().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_the_loaders_dataset_keeps_its_own_statistics(camera_root: Path, tmp_path: Path) -> None:
    source = dataset(camera_root)
    trainer(tmp_path).fit(ACT(**POLICIES["act"]), DataLoader(source, batch_size=4))
    camera: Any = source.meta.stats["observation.images.top"]
    assert camera["mean"].ravel()[0] != pytest.approx(0.485)


def test_deltas_that_do_not_fit_are_refused(camera_root: Path, tmp_path: Path) -> None:
    source = dataset(camera_root, delta_timestamps={"action": [0.0, 1 / 15]})
    with pytest.raises(GetiactionError, match=r"\[0, 0.06667\], but the policy needs \[0, "):
        trainer(tmp_path).fit(ACT(**POLICIES["act"]), DataLoader(source, batch_size=4))


@pytest.mark.parametrize("kind", ["dataset", "metadata", "module", "path", "text"])
def test_a_policy_for_a_dataset(camera_root: Path, kind: str) -> None:
    sources: dict[str, Callable[[], Any]] = {
        "dataset": lambda: dataset(camera_root),
        "metadata": lambda: metadata(camera_root),
        "module": lambda: LeRobotDataModule(root=camera_root),
        "path": lambda: camera_root,
        "text": lambda: str(camera_root),
    }
    source = sources[kind]()
    torch.manual_seed(3)
    policy = ACT.from_dataset(source, **POLICIES["act"])
    assert type(policy) is ACT
    torch.manual_seed(3)
    other = LeRobotPolicy.from_dataset(source, "act", **POLICIES["act"])
    assert torch.equal(actions(policy), actions(other))
    assert isinstance(TDMPC.from_dataset(source, **POLICIES["tdmpc"]), TDMPC)


def test_what_is_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GetiactionError, match="a dict is not a dataset"):
        ACT.from_dataset({})
    with pytest.raises(GetiactionError, match="there is no dataset at"):
        ACT.from_dataset(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "given", ["checkpoints/000040/pretrained_model", "checkpoints/000040", "checkpoints", "."]
)
def test_checkpoints_are_found_from_above(camera_root: Path, tmp_path: Path, given: str) -> None:
    policy = make(camera_root, "act")
    policy.save_pretrained(tmp_path / "checkpoints/000040/pretrained_model")
    (tmp_path / "checkpoints/last").symlink_to("000040")
    assert torch.equal(actions(ACT.from_pretrained(tmp_path / given)), actions(policy))


def test_no_checkpoint_there(tmp_path: Path) -> None:
    with pytest.raises(GetiactionError, match=r"no LeRobot policy at .*expected config.json"):
        ACT.from_pretrained(tmp_path)


def test_a_name_on_the_hub_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(GetiactionError, match="no policy can be loaded from lerobot/none:") as said:
        ACT.from_pretrained("lerobot/none")
    assert "\n" not in str(said.value)


def test_a_pretrained_policy_is_tuned_with_the_datasets_statistics(
    camera_root: Path, tmp_path: Path
) -> None:
    """As ``lerobot-train --policy.path``: its weights, and the numbers of the new data."""
    pretrained = make(camera_root, "act")
    pretrained.save_pretrained(tmp_path)
    meta = metadata(camera_root)
    meta.stats["action"]["mean"] = meta.stats["action"]["mean"] + 5
    tuned = ACT(**POLICIES["act"], pretrained_path=tmp_path).create(meta)
    for name, weight in pretrained.state_dict().items():
        assert torch.equal(tuned.state_dict()[name], weight)
    assert tuned.lerobot_policy.training
    assert torch.allclose(actions(tuned), actions(pretrained) + 5)
