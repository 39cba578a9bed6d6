"""No checkpoint of numbers that are not finite is published, however it would be saved."""

import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from foundation.manifest import faults
from getiaction.errors import GetiactionError
from getiaction.train import NativeCheckpoint, StepReport
from getiaction.train.callbacks import StopOnSignal
from getiaction.train.publishable import require_finite
from tests.getiaction.train.small import data, policy, trainer


class Diverge(Callback):
    """Let a weight, or the average of its gradients, be no number after a step."""

    def __init__(self, at: int, *, optimizers: bool = False, signum: int | None = None) -> None:
        self.at, self.optimizers, self.signum = at, optimizers, signum

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        if trainer.global_step != self.at:
            return
        weight = pl_module.lerobot_policy.model.action_head.weight
        numbers = trainer.optimizers[0].state[weight]["exp_avg_sq"] if self.optimizers else weight
        numbers.data[0, 0] = math.inf if self.optimizers else math.nan
        if self.signum is not None:
            os.kill(os.getpid(), self.signum)


@pytest.mark.parametrize("optimizers", [False, True])
def test_native_checkpoints(state_root: Path, tmp_path: Path, optimizers: bool) -> None:
    save = NativeCheckpoint(tmp_path, total_steps=6, save_freq=1)
    diverge = Diverge(4, optimizers=optimizers)
    report = StepReport(total_steps=6, log_freq=100)
    fitted = trainer(tmp_path, max_steps=6, max_epochs=-1, callbacks=[diverge, save, report])
    with pytest.raises(GetiactionError) as error:
        fitted.fit(policy(), data(state_root))
    said = str(error.value)
    assert said.startswith("after step 4 ")
    assert ("exp_avg_sq of model.action_head.weight" in said) == optimizers
    assert "model.action_head.weight is NaN or infinite: training has diverged" in said
    assert "lower the learning rate (now " in said
    assert "or clip gradients more" in said
    last = (tmp_path / "checkpoints/last").resolve()
    assert said.endswith(f"the last good checkpoint is {last}")
    assert (last.name, faults(last)) == ("000003", [])
    assert sorted(p.name for p in last.parent.iterdir()) == ["000001", "000002", "000003", "last"]


@pytest.mark.parametrize("save_weights_only", [False, True])
def test_lightnings_checkpoints(state_root: Path, tmp_path: Path, save_weights_only: bool) -> None:
    keep = ModelCheckpoint(
        tmp_path,
        "{step}",
        every_n_train_steps=1,
        save_top_k=-1,
        save_last=True,
        save_weights_only=save_weights_only,
    )
    fitted = trainer(tmp_path, callbacks=[Diverge(3), keep], enable_checkpointing=True)
    with pytest.raises(GetiactionError, match="after step 3 .* is NaN .* saved before are good"):
        fitted.fit(policy(), data(state_root))
    names = sorted(path.name for path in tmp_path.glob("*.ckpt"))
    assert names == ["last.ckpt", "step=1.ckpt", "step=2.ckpt"]
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 2


@pytest.mark.parametrize("native", [False, True])
def test_nor_at_a_signal(state_root: Path, tmp_path: Path, native: bool) -> None:
    keep: Callback = ModelCheckpoint(tmp_path, save_top_k=-1)
    if native:
        keep = NativeCheckpoint(tmp_path, total_steps=6, save_freq=0)
    stop = StopOnSignal()
    callbacks = [Diverge(2, signum=signal.SIGTERM), keep, stop]
    fitted = trainer(tmp_path, max_steps=6, callbacks=callbacks, enable_checkpointing=not native)
    with pytest.raises(GetiactionError, match="after step 2 .* is NaN or infinite"):
        fitted.fit(policy(), data(state_root))
    assert stop.saved is None
    assert list(tmp_path.rglob("*.ckpt")) == []
    assert not (tmp_path / "checkpoints").exists()


def test_whole_numbers_and_empty_weights_are_finite() -> None:
    module = torch.nn.BatchNorm1d(3)
    module.register_buffer("none", torch.zeros(0))
    require_finite(module, [], step=1, kept="")
    assert module.running_var is not None
    module.running_var[1] = -math.inf
    with pytest.raises(GetiactionError, match="after step 1 running_var is NaN or infinite"):
        require_finite(module, [], step=1, kept="")
