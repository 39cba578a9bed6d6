import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lerobot.optim.schedulers import CosineAnnealingWithWarmupSchedulerConfig
from lightning.pytorch.callbacks import ModelCheckpoint

from getiaction.train.checkpoint import GRAD_SCALER
from tests.getiaction.train.runs import Result, train_ours

STEPS = 14
COSINE = CosineAnnealingWithWarmupSchedulerConfig(num_warmup_steps=3)


@pytest.fixture(scope="module")
def uninterrupted(
    state_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Result, Path]:
    run_dir = tmp_path_factory.mktemp("uninterrupted")
    return train_ours(state_root, run_dir, steps=STEPS, save_freq=1, scheduler=COSINE), run_dir


# An epoch is 6 steps: in the first epoch, at its border, in the second epoch, at the last border.
@pytest.mark.parametrize("step", [4, 6, 9, 12])
def test_a_resumed_run_equals_an_uninterrupted_one(
    uninterrupted: tuple[Result, Path], state_root: Path, tmp_path: Path, step: int
) -> None:
    whole, run_dir = uninterrupted
    rest = train_ours(
        state_root,
        tmp_path,
        steps=STEPS,
        scheduler=COSINE,
        resume_from=run_dir / "checkpoints" / f"{step:06d}",
    )
    assert rest.losses == whole.losses[step:]
    for name, weight in whole.weights.items():
        assert torch.equal(rest.weights[name], weight), name
    saved = (tmp_path / "checkpoints/last/training_state/training_step.json").read_text()
    assert f'"step": {STEPS}' in saved


# In the first phase of VQ-BeT and in the second, whose border is at step 15.
@pytest.mark.parametrize("step", [9, 17])
@pytest.mark.parametrize("kind", ["native", "lightning"])
@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_vqbet_goes_on_in_its_phase(
    policies_root: Path, tmp_path: Path, step: int, kind: str
) -> None:
    def train(name: str, **options: Any) -> Result:
        keep = ModelCheckpoint(tmp_path / name, "{step}", save_top_k=-1, every_n_train_steps=1)
        trainer_options = {"enable_checkpointing": True, "callbacks": [keep]}
        return train_ours(
            policies_root,
            tmp_path / name,
            steps=19,
            policy_name="vqbet",
            save_freq=step,
            trainer_options=trainer_options,
            **options,
        )

    whole = train("whole")
    if kind == "native":
        rest = train("rest", resume_from=tmp_path / "whole" / "checkpoints" / f"{step:06d}")
    else:
        rest = train("rest", ckpt_path=tmp_path / "whole" / f"step={step}.ckpt")
    assert rest.losses == whole.losses[step:]
    for name, weight in whole.weights.items():
        assert torch.equal(rest.weights[name], weight), name


def test_the_scale_of_float16_goes_on(state_root: Path, tmp_path: Path) -> None:
    half: dict[str, Any] = {"trainer_options": {"precision": "16-mixed"}, "total_steps": 6}
    whole = train_ours(state_root, tmp_path / "whole", steps=6, save_freq=3, **half)
    checkpoint = tmp_path / "whole" / "checkpoints" / "000003"
    rest = train_ours(state_root, tmp_path / "rest", steps=6, resume_from=checkpoint, **half)
    place = Path("checkpoints/last/training_state") / GRAD_SCALER
    scales = [json.loads((tmp_path / name / place).read_text()) for name in ("whole", "rest")]
    assert scales[0] == scales[1]
    # It does not stand where it begins.
    assert scales[0]["scale"] != 2.0**16
    assert rest.losses == whole.losses[3:]
