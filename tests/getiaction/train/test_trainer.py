"""What the Trainer adds to Lightning's."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lerobot.optim.optimizers import SGDConfig
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.callbacks import (
    ModelCheckpoint,
    ModelSummary,
    RichProgressBar,
)
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy

from getiaction.errors import GetiactionError
from getiaction.train import LightningTrainer, Trainer
from getiaction.train.exact_resume import ExactResume
from getiaction.train.progress import ProgressLines
from tests.getiaction.train.small import Metrics, data, drift, policy, trainer

# Without padding, dropout or a latent draw, a batch's loss is the mean of its halves'.
PLAIN: dict[str, Any] = {
    "chunk_size": 1,
    "n_action_steps": 1,
    "use_vae": False,
    "dropout": 0.0,
    "optimizer": SGDConfig(lr=0.05, grad_clip_norm=10.0),
}


def test_it_is_lightnings_with_defaults_of_ours(tmp_path: Path) -> None:
    run = Trainer(experiment_name="one", default_root_dir=tmp_path, accelerator="cpu", max_epochs=1)
    assert LightningTrainer is Trainer
    assert run.default_root_dir == str(tmp_path / "one")
    assert isinstance(run.logger, TensorBoardLogger)
    assert Path(run.logger.save_dir) == tmp_path / "one"
    assert any(isinstance(callback, ModelCheckpoint) for callback in run.callbacks)
    assert any(isinstance(callback, ExactResume) for callback in run.callbacks)
    assert run.progress_bar_callback is not None
    assert run.num_sanity_val_steps == 0
    assert torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.benchmark
    assert Trainer(accelerator="cpu", max_epochs=1).default_root_dir.endswith("experiments")
    theirs = Trainer(
        accelerator="cpu", max_epochs=1, default_root_dir="s3://bucket/runs", experiment_name="two"
    )
    assert theirs.default_root_dir == "s3://bucket/runs/two"
    mine = ExactResume()
    assert Trainer(accelerator="cpu", max_epochs=1, callbacks=mine).callbacks.count(mine) == 1


def test_the_bar_does_not_depend_on_what_else_is_installed(tmp_path: Path) -> None:
    """With rich installed, which is the case here, Lightning would choose rich's."""
    made = Trainer(default_root_dir=tmp_path)
    assert type(made.progress_bar_callback) is ProgressLines
    assert [type(c) for c in made.callbacks if isinstance(c, ModelSummary)] == [ModelSummary]
    own = Trainer(default_root_dir=tmp_path, callbacks=[RichProgressBar()])
    assert type(own.progress_bar_callback) is RichProgressBar
    none = Trainer(default_root_dir=tmp_path, enable_progress_bar=False, enable_model_summary=False)
    assert none.progress_bar_callback is None
    assert not [c for c in none.callbacks if isinstance(c, ModelSummary)]


@pytest.mark.parametrize("strategy", ["auto", "ddp", "ddp_spawn"])
def test_ddp_lets_weights_go_without_gradients_as_lerobot_does(strategy: str) -> None:
    run = Trainer(accelerator="cpu", devices=2, strategy=strategy, max_epochs=1)
    assert isinstance(run.strategy, DDPStrategy)
    assert run.strategy._ddp_kwargs["find_unused_parameters"]
    given = DDPStrategy(find_unused_parameters=False)
    assert Trainer(accelerator="cpu", devices=2, strategy=given, max_epochs=1).strategy is given


class Steps(Callback):
    """Count the policy's own updates, and keep its weights and gradient's norm at the steps."""

    def __init__(self) -> None:
        self.updates = 0
        self.norms: list[float] = []
        self.losses: list[float] = []
        self.before: dict[str, torch.Tensor] = {}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        network = pl_module.lerobot_policy
        self.before = {name: weight.clone() for name, weight in network.state_dict().items()}

        def update() -> None:
            self.updates += 1
            self.norms.append(pl_module.grad_norm.item())

        network.update = update

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *rest: Any) -> None:
        self.losses.append(outputs["loss"].item())


def fit(root: Path, run_dir: Path, *, batch: int = 34, **options: Any) -> tuple[Steps, Any]:
    steps, module = Steps(), policy(**PLAIN)
    run = trainer(run_dir, callbacks=[steps], **options)
    run.fit(module, data(root, train_batch_size=batch))
    return steps, module


def test_accumulated_batches_are_one_larger_batch(state_root: Path, tmp_path: Path) -> None:
    halves, ours = fit(state_root, tmp_path, batch=17, accumulate_grad_batches=2, max_epochs=3)
    whole, other = fit(state_root, tmp_path, max_epochs=3)
    assert halves.updates == whole.updates == 3
    assert len(halves.losses) == 6
    assert halves.norms == pytest.approx(whole.norms, rel=1e-4)
    weights = other.lerobot_policy.state_dict()
    assert any(not torch.equal(halves.before[name], weight) for name, weight in weights.items())
    for name, weight in weights.items():
        torch.testing.assert_close(ours.lerobot_policy.state_dict()[name], weight, msg=name)


def test_a_given_clip_value_replaces_the_policys(state_root: Path, tmp_path: Path) -> None:
    moved = {}
    for limit in (None, 1e-3):
        steps, module = fit(state_root, tmp_path, gradient_clip_val=limit)
        weights = module.lerobot_policy.state_dict()
        squares = [((weights[n] - w) ** 2).sum() for n, w in steps.before.items()]
        moved[limit] = torch.stack(squares).sum().sqrt().item()
        # The norm is that before clipping, and far above either limit.
        assert steps.norms[0] > 20
    assert moved[1e-3] == pytest.approx(0.05 * 1e-3, rel=1e-2)
    assert moved[None] == pytest.approx(0.05 * 10, rel=1e-2)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_clips_gradients_as_they_are(
    state_root: Path, tmp_path: Path, precision: str
) -> None:
    """The scaler's factor, 65536 at first, must be gone when the norm is taken."""
    full, _ = fit(state_root, tmp_path)
    steps, module = fit(
        state_root, tmp_path, precision=precision, plugins=[TorchCheckpointIO()], max_epochs=8
    )
    # In float16 the scaler skips steps until its factor fits; meanwhile weights stay.
    skipped = next(at for at, norm in enumerate(steps.norms) if math.isfinite(norm))
    assert len(set(steps.losses[: skipped + 1])) == 1
    assert steps.losses[skipped + 1] != steps.losses[skipped]
    assert steps.losses[0] != full.losses[0]
    assert steps.losses[0] == pytest.approx(full.losses[0], rel=0.01)
    assert steps.norms[skipped] == pytest.approx(full.norms[0], rel=0.01)
    plugin: Any = module.trainer.precision_plugin
    assert plugin.precision == precision
    if precision == "16-mixed":
        assert plugin.scaler.get_scale() == 65536 / 2**skipped
    else:
        assert skipped == 0
    # The weights themselves, and so what is saved, are float32.
    assert {weight.dtype for weight in module.lerobot_policy.parameters()} == {torch.float32}


class Nothing(LightningDataModule):
    def val_dataloader(self) -> list[Any]:
        return []

    def test_dataloader(self) -> list[Any]:
        return []


@pytest.mark.parametrize(
    ("what", "message"),
    [("validate", "val_gyms.* val_split"), ("test", "test_gyms")],
)
@pytest.mark.parametrize("own", [True, False])
def test_nothing_to_evaluate_is_said(
    state_root: Path, tmp_path: Path, what: str, message: str, own: bool
) -> None:
    source = data(state_root)
    module = policy().create(source.meta)
    with pytest.raises(GetiactionError, match=f"nothing to {what}.*{message}"):
        getattr(trainer(tmp_path), what)(module, source if own else Nothing())


def test_fit_then_test_the_best(state_root: Path, tmp_path: Path) -> None:
    """All of Lightning's own: the checkpoint is found, loaded and tried."""
    metrics, module = Metrics(), policy()
    source = data(state_root, val_gyms=drift(), test_gyms=drift(), test_start_seed=1000)
    run = trainer(
        tmp_path,
        max_epochs=2,
        callbacks=[metrics, ModelCheckpoint(tmp_path, monitor="val/gym/reward_mean")],
        enable_checkpointing=True,
        num_sanity_val_steps=1,
    )
    run.fit(module, source)
    before = {n: w.clone() for n, w in module.lerobot_policy.state_dict().items()}
    (tested,) = run.test(module, source, ckpt_path="best", verbose=False)
    best = max(logged["val/gym/reward_mean"] for logged in metrics.at_step.values())
    # The three episodes of the validation are the first of the ten of the test.
    rewards = [episode.sum_reward for episode in module.episodes[""][:3]]
    assert sum(rewards) / 3 == pytest.approx(best)
    assert tested["test/gym/n_episodes"] == 10
    assert before.keys() == module.lerobot_policy.state_dict().keys()
