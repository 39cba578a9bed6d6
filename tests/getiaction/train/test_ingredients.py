"""Each ingredient of native training, taken away from ours alone, is noticed by its losses.

Without these, ``test_against_native`` could pass because an ingredient has no effect on its runs.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lerobot.datasets import EpisodeAwareSampler, LeRobotDataset
from lightning.pytorch import LightningModule
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler

from getiaction.data import LeRobotDataModule
from getiaction.policies.lerobot import LeRobotPolicy
from tests.getiaction.train.runs import STEPS, Result, train_ours

type NativeRun = Callable[[str], Result]

pytestmark = pytest.mark.e2e
# Past the first epoch, and past VQ-BeT's change of phase after 15 steps.
SOME = 20


class Unclipped(LeRobotPolicy):
    def configure_gradient_clipping(self, *args: Any, **kwargs: Any) -> None:
        pass


class ClippedByLightning(LeRobotPolicy):
    """The same limit; the norm is summed in the order of the optimizer's groups."""

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        limit = self.optimizer_config.grad_clip_norm
        self.clip_gradients(optimizer, limit, "norm")


class Unscheduled(LeRobotPolicy):
    def configure_optimizers(self) -> Any:
        made = super().configure_optimizers()
        assert made["lr_scheduler"]["interval"] == "step"
        return made["optimizer"]


class ScheduledByEpoch(LeRobotPolicy):
    """Lightning's default, were the schedule returned beside the optimizer without more."""

    def configure_optimizers(self) -> Any:
        made = super().configure_optimizers()
        return [made["optimizer"]], [made["lr_scheduler"]["scheduler"]]


class OneGroup(LeRobotPolicy):
    """One learning rate and one weight decay for all parameters."""

    def configure_optimizers(self) -> Any:
        self.lerobot_policy.get_optim_params = self.lerobot_policy.parameters
        return super().configure_optimizers()


class Unpadded(LeRobotPolicy):
    """Actions beyond an episode's end, copies of its last, count as if they were real."""

    def prepare_batch(self, batch: Any) -> Any:
        batch["action_is_pad"] = torch.zeros_like(batch["action_is_pad"])
        return super().prepare_batch(batch)


class NeverUpdated(LeRobotPolicy):
    """The target network stays as it was made."""

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        LightningModule.optimizer_step(self, *args, **kwargs)


def loader(data: LeRobotDataModule, order: Any, *, drop_last: bool = False) -> DataLoader[Any]:
    """The training batches in another order."""
    plain = LeRobotDataModule.train_dataloader(data)
    return DataLoader(
        data.train_dataset,
        batch_size=data.train_batch_size,
        sampler=order,
        collate_fn=plain.collate_fn,
        drop_last=drop_last,
    )


class InOrder(LeRobotDataModule):
    def train_dataloader(self) -> DataLoader[Any]:
        return loader(self, SequentialSampler(self.train_dataset))


class ShuffledByTorch(LeRobotDataModule):
    """Shuffled by the global random numbers, as ``DataLoader(shuffle=True)`` does."""

    def train_dataloader(self) -> DataLoader[Any]:
        return loader(self, RandomSampler(self.train_dataset))


class OneOrder(LeRobotDataModule):
    """The first epoch's order in every epoch."""

    def train_dataloader(self) -> DataLoader[Any]:
        return loader(self, list(self.sampler))


class WholeEpisodes(LeRobotDataModule):
    """With the last frames of each episode, which Diffusion wants left out."""

    def train_dataloader(self) -> DataLoader[Any]:
        episodes = self.meta.episodes
        begin, end = episodes["dataset_from_index"], episodes["dataset_to_index"]
        order = EpisodeAwareSampler(begin, end, shuffle=True, seed=self.seed)
        return loader(self, order)


class FullBatches(LeRobotDataModule):
    """Without the smaller last batch of each epoch."""

    def train_dataloader(self) -> DataLoader[Any]:
        return loader(self, self.sampler, drop_last=True)


class DrawingLoader(LeRobotDataModule):
    """A held-out loader without a generator of its own: its iterator draws a seed for workers."""

    def val_dataloader(self) -> list[DataLoader[Any]]:
        (own,) = super().val_dataloader()
        return [DataLoader(own.dataset, self.train_batch_size, collate_fn=own.collate_fn)]


# Policy, what replaces a part of ours, and the steps that must be the same nevertheless: where the
# part has had no effect yet. An epoch has 13 steps (7 for Diffusion), the last with a small batch.
POLICY_PARTS: list[tuple[str, type[LeRobotPolicy], int]] = [
    ("act", Unclipped, 1),
    ("act", ClippedByLightning, 1),
    ("diffusion", Unscheduled, 1),
    ("diffusion", ScheduledByEpoch, 1),
    ("vqbet", Unscheduled, 16),
    ("act", OneGroup, 1),
    ("vqbet", OneGroup, 1),
    ("act", Unpadded, 0),
    ("diffusion", Unpadded, 0),
    ("tdmpc", NeverUpdated, 1),
]
DATA_PARTS: list[tuple[str, type[LeRobotDataModule], int]] = [
    ("act", InOrder, 0),
    ("act", ShuffledByTorch, 0),
    ("act", OneOrder, 13),
    ("act", FullBatches, 12),
    ("diffusion", WholeEpisodes, 0),
]


def assert_noticed(without: Result, native: Result, same: int) -> None:
    assert len(without.losses) > same
    assert without.losses[:same] == native.losses[:same]
    assert without.losses != native.losses[: len(without.losses)]


@pytest.mark.parametrize(("policy_name", "policy_class", "same"), POLICY_PARTS)
def test_policy_part(
    policies_root: Path,
    native_run: NativeRun,
    tmp_path: Path,
    policy_name: str,
    policy_class: type[LeRobotPolicy],
    same: int,
) -> None:
    without = train_ours(
        policies_root,
        tmp_path,
        steps=SOME,
        total_steps=STEPS,
        policy_name=policy_name,
        policy_class=policy_class,
    )
    assert_noticed(without, native_run(policy_name), same)


@pytest.mark.parametrize(("policy_name", "data_class", "same"), DATA_PARTS)
def test_data_part(
    policies_root: Path,
    native_run: NativeRun,
    tmp_path: Path,
    policy_name: str,
    data_class: type[LeRobotDataModule],
    same: int,
) -> None:
    without = train_ours(
        policies_root,
        tmp_path,
        steps=SOME,
        total_steps=STEPS,
        policy_name=policy_name,
        data_class=data_class,
    )
    assert_noticed(without, native_run(policy_name), same)


@pytest.mark.parametrize("policy_name", ["act", "diffusion"])
def test_imagenet_statistics(
    policies_root: Path, native_run: NativeRun, tmp_path: Path, policy_name: str
) -> None:
    without = train_ours(
        policies_root,
        tmp_path,
        steps=SOME,
        total_steps=STEPS,
        policy_name=policy_name,
        use_imagenet_stats=False,
    )
    assert_noticed(without, native_run(policy_name), 0)


def test_held_out_loader(policies_root: Path, native_run: NativeRun, tmp_path: Path) -> None:
    without = train_ours(
        policies_root,
        tmp_path,
        steps=SOME,
        total_steps=STEPS,
        data_class=DrawingLoader,
        val_dataset=LeRobotDataset("local/small", root=policies_root, episodes=[1]),
        trainer_options={"val_check_interval": 5, "check_val_every_n_epoch": None},
    )
    assert_noticed(without, native_run("act"), 5)
