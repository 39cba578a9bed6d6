"""``configs/stack_cubes.yaml``: from raw episodes to a checkpoint chosen in the simulator."""

from pathlib import Path

import pytest

from getiaction.cli import main
from positronic.cli import status
from positronic.vendors.lerobot import convert
from tests.positronic.vendors.lerobot.raw import record

CONFIG = Path(__file__).parents[4] / "configs/stack_cubes.yaml"
SMALLER = [
    "--trainer.accelerator=cpu",
    "--trainer.max_steps=2",
    "--trainer.limit_train_batches=2",
    "--trainer.val_check_interval=2",
    "--trainer.log_every_n_steps=1",
    "--trainer.enable_progress_bar=false",
    "--model.init_args.dim_model=16",
    "--model.init_args.dim_feedforward=16",
    "--data.train_batch_size=8",
    "--data.num_rollouts_val=2",
    "--data.num_envs=1",
    "--data.max_episode_steps=3",
]


def test_a_checkpoint_by_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for episode in range(2):
        record(Path("raw"), episode, size=None)
    # The command that the file names.
    words = [
        "--dataset.dataset=@positronic.cfg.ds.local",
        "--dataset.dataset.path=raw",
        "--dataset.codec=@positronic.vendors.lerobot.codecs.eepose_state",
        "--output_dir=datasets/stack_cubes",
        "--fps=15",
    ]
    assert all(word in CONFIG.read_text() for word in words if "path=" not in word)
    assert status({"convert": convert.convert}, convert.PROG, ["convert", *words]) == 0
    assert main(["fit", f"--config={CONFIG}", *SMALLER]) == 0
    assert list(tmp_path.glob("experiments/**/*.ckpt"))
