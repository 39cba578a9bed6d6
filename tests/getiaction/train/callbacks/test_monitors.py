import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch import callbacks as lightnings

from getiaction.errors import GetiactionError
from getiaction.train.callbacks import EarlyStopping, ModelCheckpoint
from getiaction.train.callbacks.monitors import mode_of
from tests.getiaction.train.small import Drift, data, drift, policy, trainer

SUCCESS = "val/gym/success"


@pytest.mark.parametrize(
    ("metric", "mode"),
    [
        (SUCCESS, "max"),
        ("val/gym/success_low", "max"),
        ("val/gym/pc_success", "max"),
        ("test/gym/avg_max_reward", "max"),
        ("val/gym/reward_mean", "max"),
        ("val/loss", "min"),
        ("train/recon_l1_error", "min"),
        ("val/gym/avg_episode_length", "min"),
        # A gym's name says nothing.
        ("val/gym/reward/n_episodes", None),
    ],
)
def test_the_name_says_which_way_is_better(metric: str, mode: str | None) -> None:
    assert mode_of(metric) == mode


class Fortune(Callback):
    """Let the n-th validation's rollouts all succeed or all fail, and keep the weights of each."""

    def __init__(self, *successes: bool) -> None:
        self.successes = list(successes)
        self.weights: list[Any] = []

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        Drift.threshold = 1e9 if self.successes[len(self.weights)] else -1e9
        weights = pl_module.lerobot_policy.state_dict()
        self.weights.append({name: value.clone() for name, value in weights.items()})

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        Drift.threshold = None


def run(root: Path, run_dir: Path, fortune: Fortune, *callbacks: Callback, **options: Any) -> Any:
    made = trainer(
        run_dir,
        enable_checkpointing=any(isinstance(c, lightnings.ModelCheckpoint) for c in callbacks),
        callbacks=[fortune, *callbacks],
        **{"val_check_interval": 2, "max_epochs": 1, **options},
    )
    made.fit(policy(), data(root, val_gyms=drift(), num_rollouts_val=1))
    return made


@pytest.mark.parametrize("own", [True, False])
def test_a_checkpoint_keeps_the_best(
    state_root: Path, tmp_path: Path, own: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Lightning's own, written as in its documents, would keep the one that always fails."""
    made = ModelCheckpoint if own else lightnings.ModelCheckpoint
    checkpoint = made(dirpath=tmp_path, monitor=SUCCESS)
    fortune = Fortune(False, True, False)
    run(state_root, tmp_path, fortune, checkpoint)
    assert checkpoint.mode == "max"
    assert checkpoint.best_model_score == 1
    assert [path.name for path in tmp_path.glob("*.ckpt")] == ["epoch=0-step=4.ckpt"]
    saved = torch.load(checkpoint.best_model_path, weights_only=True)["state_dict"]
    for name, weight in fortune.weights[1].items():
        assert torch.equal(saved[f"lerobot_policy.{name}"], weight), name
    said = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert said == (
        []
        if own
        else [
            f"ModelCheckpoint watches {SUCCESS!r}, of which more is better: taking mode='max' "
            "instead of 'min'"
        ]
    )


def test_the_best_two_are_kept(state_root: Path, tmp_path: Path) -> None:
    checkpoint = lightnings.ModelCheckpoint(tmp_path, monitor=SUCCESS, save_top_k=2)
    trainer(tmp_path, callbacks=checkpoint, enable_checkpointing=True)
    assert checkpoint.kth_value == -torch.inf
    run(state_root, tmp_path, Fortune(True, False, True), checkpoint)
    kept = {path.name for path in tmp_path.glob("*.ckpt")}
    assert kept == {"epoch=0-step=2.ckpt", "epoch=0-step=6.ckpt"}
    assert checkpoint.kth_value == 1


@pytest.mark.parametrize("own", [True, False])
def test_training_stops_when_success_no_longer_grows(
    state_root: Path, tmp_path: Path, own: bool
) -> None:
    made = EarlyStopping if own else lightnings.EarlyStopping
    stop = made(monitor=SUCCESS, patience=2, min_delta=0.1)
    fortune = Fortune(False, True, False, True, True)
    stopped = run(state_root, tmp_path, fortune, stop, max_epochs=5)
    # The second validation was the best; two more were no better.
    assert stopped.global_step == 8
    assert stop.stopped_epoch == 1
    assert stop.best_score == 1
    assert stop.min_delta == 0.1


def test_a_metric_that_says_nothing_needs_a_mode() -> None:
    with pytest.raises(
        GetiactionError, match="cannot infer the mode of 'mine' from its name: give mode"
    ):
        ModelCheckpoint(monitor="mine")
    with pytest.raises(GetiactionError, match="^EarlyStopping cannot infer the mode"):
        EarlyStopping("mine")
    assert EarlyStopping("mine", mode="max", patience=7).patience == 7
    assert ModelCheckpoint(monitor="mine", mode="max", save_last=True).mode == "max"
    assert ModelCheckpoint().monitor is None


@pytest.mark.parametrize(
    ("callback", "gyms", "message"),
    [
        (ModelCheckpoint(monitor=SUCCESS), None, "no gyms for rollouts; .* val_gyms$"),
        (lightnings.EarlyStopping(SUCCESS), None, "^EarlyStopping watches .*val_gyms$"),
        (EarlyStopping("val/loss"), drift(), "no episodes are held out .* val_split"),
        (
            ModelCheckpoint(monitor="val/gym/succes", mode="max"),
            drift(),
            "which nothing logs .did you mean 'val/gym/success'",
        ),
        (
            ModelCheckpoint(monitor="val/gym/b/success"),
            {"a": drift(), "c": drift()},
            "did you mean 'val/gym/[ac]/success'",
        ),
    ],
)
def test_a_metric_that_cannot_come_is_refused_before_the_first_step(
    state_root: Path, tmp_path: Path, callback: Callback, gyms: Any, message: str
) -> None:
    made = trainer(tmp_path, callbacks=callback, enable_checkpointing=True)
    with pytest.raises(GetiactionError, match=message):
        made.fit(policy(), data(state_root, val_gyms=gyms))
    assert made.global_step == 0
