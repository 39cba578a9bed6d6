"""Training under Lightning equals ``lerobot-train`` to the last bit."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lerobot.datasets import LeRobotDataset
from lerobot.optim.schedulers import (
    CosineAnnealingWithWarmupSchedulerConfig,
    LRSchedulerConfig,
)

from getiaction.train.precision import CachedAutocast
from tests.getiaction.train.runs import (
    POLICIES,
    STEPS,
    Looking,
    Result,
    looking,
    train_natively,
    train_ours,
)

# 34 and 28 frames in batches of 6: both runs go over an epoch's border and a smaller last batch.
STATE_STEPS = 14
IMAGE_STEPS = 7
# `make e2e` does the same with the others.
ACT_FIRST = [
    pytest.param(name, marks=() if name == "act" else pytest.mark.e2e) for name in POLICIES
]
COSINE = CosineAnnealingWithWarmupSchedulerConfig(num_warmup_steps=3)


def assert_same(ours: Result, other: Result, steps: int) -> None:
    assert ours.losses == other.losses
    assert len(ours.losses) == steps
    assert ours.weights.keys() == other.weights.keys()
    for name, weight in other.weights.items():
        assert torch.equal(ours.weights[name], weight), name


@pytest.mark.parametrize("policy_name", ACT_FIRST)
def test_every_policy(
    policies_root: Path,
    native_run: Callable[[str], Result],
    tmp_path: Path,
    policy_name: str,
) -> None:
    """Three epochs by the policy's presets, over the end of each warmup and phase."""
    ours = train_ours(policies_root, tmp_path, steps=STEPS, policy_name=policy_name)
    assert_same(ours, native_run(policy_name), STEPS)


@pytest.mark.parametrize("scheduler", [None, COSINE], ids=["preset", "cosine"])
def test_state_policy(
    state_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scheduler: LRSchedulerConfig | None,
) -> None:
    native = train_natively(
        state_root, tmp_path / "native", monkeypatch, steps=STATE_STEPS, scheduler=scheduler
    )
    ours = train_ours(state_root, tmp_path / "ours", steps=STATE_STEPS, scheduler=scheduler)
    assert_same(ours, native, STATE_STEPS)


@pytest.mark.parametrize("policy_name", ACT_FIRST)
# VQ-BeT says of its first phase that it cannot act well yet.
@pytest.mark.filterwarnings("ignore:To evaluate in the environment")
def test_every_policy_while_it_is_validated(
    policies_root: Path,
    native_run: Callable[[str], Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    policy_name: str,
) -> None:
    """Held-out losses and rollouts, within epochs and at their borders, leave training alone."""
    monkeypatch.setattr(Looking, "episodes", 0)
    ours = train_ours(
        policies_root,
        tmp_path,
        steps=STEPS,
        policy_name=policy_name,
        val_dataset=LeRobotDataset("local/small", root=policies_root, episodes=[1, 4]),
        val_gyms=looking(),
        num_rollouts_val=2,
        trainer_options={"val_check_interval": 5, "check_val_every_n_epoch": None},
    )
    assert len(set(ours.held_out_losses)) == STEPS // 5
    assert Looking.episodes >= 2 * STEPS // 5
    assert_same(ours, native_run(policy_name), STEPS)


def test_held_out_episodes(
    policies_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ``val_split`` leaves to train on is what ``eval_split`` leaves natively."""
    native = train_natively(
        policies_root,
        tmp_path / "native",
        monkeypatch,
        steps=STEPS,
        policy_name="tdmpc",
        eval_split=0.3,
    )
    ours = train_ours(
        policies_root, tmp_path / "ours", steps=STEPS, policy_name="tdmpc", val_split=0.3
    )
    assert len(ours.held_out_losses) >= 3
    assert_same(ours, native, STEPS)


def test_image_policy(image_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    native = train_natively(image_root, tmp_path / "native", monkeypatch, steps=IMAGE_STEPS)
    gathered = train_ours(image_root, tmp_path / "gathered", steps=IMAGE_STEPS, gather=True)
    assert_same(gathered, native, IMAGE_STEPS)
    one_by_one = train_ours(
        image_root, tmp_path / "items", steps=IMAGE_STEPS, gather=False, num_workers=0
    )
    assert_same(one_by_one, native, IMAGE_STEPS)


def test_mixed_precision(image_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    native = train_natively(image_root, tmp_path / "n", monkeypatch, steps=4, use_amp=True)
    exact = {"precision": None, "plugins": [CachedAutocast("bf16-mixed", "cpu")]}
    ours = train_ours(image_root, tmp_path / "ours", steps=4, use_amp=True, trainer_options=exact)
    assert_same(ours, native, 4)
    full = train_ours(image_root, tmp_path / "full", steps=4)
    assert full.losses != ours.losses
    # The fast form draws its dropout otherwise.
    monkeypatch.setitem(POLICIES, "act", POLICIES["act"] | {"dropout": 0.0})
    full = train_ours(image_root, tmp_path / "full, no dropout", steps=4)
    fast = train_ours(image_root, tmp_path / "fast", steps=4, use_amp=True)
    assert fast.losses != full.losses
    assert fast.losses == pytest.approx(full.losses, rel=0.02)


def test_validation_does_not_disturb_training(state_root: Path, tmp_path: Path) -> None:
    """Making the held-out loader's iterator must not draw from the global random numbers."""
    validated = train_ours(state_root, tmp_path / "a", steps=STATE_STEPS, val_split=0.3)
    unseen = train_ours(
        state_root, tmp_path / "b", steps=STATE_STEPS, val_split=0.3, validate=False
    )
    assert_same(validated, unseen, STATE_STEPS)
    assert len(validated.held_out_losses) >= 2
    assert unseen.held_out_losses == []


def test_the_same_run_twice_gives_the_same_weights(state_root: Path, tmp_path: Path) -> None:
    first = train_ours(state_root, tmp_path / "a", steps=STATE_STEPS)
    assert_same(train_ours(state_root, tmp_path / "b", steps=STATE_STEPS), first, STATE_STEPS)
