from pathlib import Path
from typing import Any

import pytest
import torch

from getiaction.data import LeRobotDataModule
from getiaction.errors import GetiactionError
from getiaction.policies.lerobot import LeRobotPolicy
from tests.getiaction.policies.lerobot.small import NAMES, trainer
from tests.getiaction.train.runs import POLICIES

PARTS = {
    "act": {"l1_loss", "kld_loss"},
    "diffusion": set(),
    "vqbet": {"n_different_codes", "n_different_combinations", "recon_l1_error"},
    "tdmpc": {
        "Q",
        "V",
        "consistency_loss",
        "reward_loss",
        "Q_value_loss",
        "V_value_loss",
        "pi_loss",
    },
}


def fit(root: Path, run_dir: Path, name: str, **options: Any) -> tuple[LeRobotPolicy, Any]:
    torch.manual_seed(1)
    policy = LeRobotPolicy(name, **POLICIES[name])
    run = trainer(run_dir, **options)
    run.fit(policy, LeRobotDataModule(root=root, train_batch_size=4))
    return policy, run


@pytest.mark.parametrize("name", NAMES)
def test_what_a_policy_says_beside_its_loss_is_logged(
    camera_root: Path, tmp_path: Path, name: str
) -> None:
    _, run = fit(camera_root, tmp_path, name, max_steps=1, log_every_n_steps=1)
    logged = {key.removeprefix("train/") for key in run.callback_metrics}
    assert logged >= {"loss"} | PARTS[name]
    if name != "tdmpc":
        assert logged == {"loss"} | PARTS[name]
    assert "train/loss" in run.progress_bar_metrics


def test_only_steps_that_are_logged_pay_for_it(
    camera_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[int] = []

    def log(self: Any, name: str, *args: Any, **kwargs: Any) -> None:
        if name == "train/loss":
            logged.append(self.trainer.global_step + 1)

    monkeypatch.setattr(LeRobotPolicy, "log", log)
    # 17 frames in batches of 4: five steps an epoch; the last of each is logged as well.
    fit(camera_root, tmp_path, "act", max_steps=9, log_every_n_steps=3)
    assert logged == [3, 5, 6, 9]


@pytest.mark.parametrize("precision", ["32-true", "16-mixed", "bf16-mixed"])
def test_a_policys_own_update_follows_each_step_of_the_optimizer(
    camera_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    from lerobot.policies.tdmpc.modeling_tdmpc import TDMPCPolicy

    steps: list[int] = []
    update = TDMPCPolicy.update

    def counted(self: Any) -> None:
        steps.append(len(micro))
        update(self)

    micro: list[int] = []
    forward = TDMPCPolicy.forward

    def listened(self: Any, batch: Any) -> Any:
        micro.append(1)
        return forward(self, batch)

    monkeypatch.setattr(TDMPCPolicy, "update", counted)
    monkeypatch.setattr(TDMPCPolicy, "forward", listened)
    fit(
        camera_root,
        tmp_path,
        "tdmpc",
        max_steps=2,
        accumulate_grad_batches=2,
        precision=precision,
    )
    # After every second batch, and after the optimizer's step, not before.
    assert steps == [2, 4]


class NoLoss(torch.nn.Module):
    """What a policy that learns otherwise answers."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer
        self.config = None

    def forward(self, batch: Any) -> Any:
        return self.answer


@pytest.mark.parametrize("answer", [{"action": torch.ones(3)}, (torch.ones(3), {}), 0.5])
def test_what_is_no_loss_is_refused(answer: Any) -> None:
    policy = LeRobotPolicy("act")
    policy.lerobot_policy = NoLoss(answer)
    with pytest.raises(GetiactionError, match="policy 'act' gives no loss"):
        policy({})


def test_a_missing_camera_is_refused_in_training(camera_root: Path, tmp_path: Path) -> None:
    class Renamed(LeRobotDataModule):
        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            del batch["observation.images.top"]
            return batch

    policy = LeRobotPolicy("act", **POLICIES["act"])
    with pytest.raises(GetiactionError, match=r"no 'observation.images.top'.*got observation"):
        trainer(tmp_path).fit(policy, Renamed(root=camera_root, train_batch_size=4))
