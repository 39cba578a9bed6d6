from pathlib import Path

import pytest
import torch
from lerobot.optim.schedulers import CosineAnnealingWithWarmupSchedulerConfig

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
