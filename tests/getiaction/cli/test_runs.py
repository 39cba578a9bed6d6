"""Runs from the first step to the evaluation of what came of it."""

import re
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback

from foundation.console import EXIT_ERROR
from getiaction.cli import main
from tests.getiaction.cli.conftest import CONFIGS, Enter
from tests.getiaction.datasets import write
from tests.getiaction.hub import ANY, PUSHT

CONFIG = CONFIGS / "lerobot_act_simple.yaml"
SMALL = [
    "--model.init_args.dim_model=16",
    "--model.init_args.n_heads=2",
    "--model.init_args.dim_feedforward=16",
    "--model.init_args.n_encoder_layers=1",
    "--model.init_args.pretrained_backbone_weights=null",
    "--data.init_args.train_batch_size=4",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.log_every_n_steps=1",
]
CSV = ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=logs"]
LOGS = Path("logs/lightning_logs")


@pytest.fixture
def without_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Training without cameras, so without a backbone of 11 million weights."""
    monkeypatch.chdir(tmp_path)
    root = write(tmp_path / "dataset", [10, 9])
    chunk = ["--model.init_args.chunk_size=10", "--model.init_args.n_action_steps=10"]
    data = ["--data=getiaction.data.LeRobotDataModule", f"--data.init_args.root={root}"]
    return ["fit", "--model=getiaction.policies.lerobot.ACT", *data, *chunk, *SMALL]


@pytest.fixture
def trained(enter_hub: Enter, capsys: pytest.CaptureFixture[str]) -> Path:
    """The checkpoint of three steps of training; what was printed is there to be read."""
    enter_hub(PUSHT)
    assert main(["fit", f"--config={CONFIG}", *SMALL, *CSV, "--trainer.max_steps=3"]) == 0
    (checkpoint,) = LOGS.glob("version_0/checkpoints/*.ckpt")
    return checkpoint


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_the_end_of_training_names_the_next_command(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    *_, checkpoint, following = capsys.readouterr().err.splitlines()
    assert checkpoint == f"checkpoint: {trained}"
    assert following == (
        f"next: getiaction predict --config={LOGS}/version_0/config.yaml --ckpt_path={trained}"
    )
    assert main(shlex.split(following)[2:]) == 0


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_from_training_to_evaluation(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # What was run lies beside its results, and can be run again.
    config = LOGS / "version_0/config.yaml"
    assert yaml.safe_load(config.read_text())["model"]["init_args"]["dim_model"] == 16
    again = [f"--config={config}", f"--ckpt_path={trained}"]
    gym = ["gyms=PushTGym", "num_rollouts_{}=2"]
    capsys.readouterr()

    options = [f"--data.val_{gym[0]}", f"--data.{gym[1].format('val')}"]
    assert main(["validate", *again, *options, "--data.max_episode_steps=3"]) == 0
    assert "val/gym/success" in capsys.readouterr().out

    options = [f"--data.test_{gym[0]}", f"--data.{gym[1].format('test')}"]
    assert main(["test", *again, *options, "--data.max_episode_steps=3"]) == 0
    assert "test/gym/success" in capsys.readouterr().out

    assert main(["predict", *again]) == 0
    path = Path(capsys.readouterr().out.strip().rpartition(": ")[2])
    predicted = torch.load(path)
    assert [chunk.shape for chunk in predicted][:1] == [(4, 10, 2)]
    assert sum(map(len, predicted)) == sum(PUSHT.lengths)

    assert main(["fit", *again, "--trainer.max_steps=5"]) == 0
    assert list(LOGS.glob("*/checkpoints/*step=5.ckpt"))


def test_a_checkpoint_that_is_not_there(
    enter_hub: Enter, capsys: pytest.CaptureFixture[str]
) -> None:
    enter_hub(PUSHT)
    words = [f"--config={CONFIG}", *SMALL, "--ckpt_path=nowhere.ckpt", "--data.test_gyms=PushTGym"]
    assert main(["test", *words]) == EXIT_ERROR
    assert capsys.readouterr().err.endswith("error: Checkpoint file not found: nowhere.ckpt\n")


def test_a_checkpoint_that_is_damaged(
    enter_hub: Enter, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    enter_hub(PUSHT)
    broken = tmp_path / "broken.ckpt"
    broken.write_text("no checkpoint")
    words = [f"--config={CONFIG}", *SMALL, f"--ckpt_path={broken}", "--data.test_gyms=PushTGym"]
    assert main(["test", *words]) == EXIT_ERROR
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"error: {broken} cannot be read as a Lightning checkpoint" in last


class Signal(Callback):
    """A signal in the second step."""

    def __init__(self, number: int) -> None:
        self.number = number

    def on_before_optimizer_step(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step == 1:
            signal.raise_signal(self.number)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves(
    number: signal.Signals, without_pictures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """What goes on from there is what would have been without it."""
    words = [*without_pictures, "--trainer.max_steps=3", *CSV]
    assert main(words) == 0
    callback = [f"--trainer.callbacks+={__name__}.Signal", f"--trainer.callbacks.number={number:d}"]
    assert main([*words, *callback]) == 128 + number
    said = rf"{number.name}: ended after step 2, saved as (.*step=2.ckpt); (\S+) resumes\n$"
    told = re.search(said, capsys.readouterr().err)
    assert told is not None
    assert told[2] == f"--ckpt_path={told[1]}"
    assert main([*words, told[2]]) == 0
    whole, _, resumed = (_weights(LOGS / f"version_{version}/checkpoints") for version in range(3))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_same_seed_is_the_same_training(without_pictures: list[str]) -> None:
    words = [*without_pictures, *CSV, "--trainer.max_steps=1"]
    for seed in ("7", "7", "8"):
        assert main([*words, f"--seed_everything={seed}"]) == 0
    one, same, other = (_weights(LOGS / f"version_{version}/checkpoints") for version in range(3))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    (checkpoint,) = folder.glob("*.ckpt")
    weights: dict[str, torch.Tensor] = torch.load(checkpoint)["state_dict"]
    return weights


NATIVE = """
trainer_type: "lerobot"
trainer:
  class_path: getiaction.trainers.LeRobotTrainer
  init_args: {max_epochs: 100, learning_rate: 1e-4}
model: {policy_type: "act", hidden_dim: 512}
data: {repo_id: "lerobot/dataset"}
"""


def test_a_configuration_for_lerobots_own_loop(enter_hub: Enter) -> None:
    enter_hub(ANY)
    Path("native.yaml").write_text(NATIVE)
    overrides: dict[str, dict[str, object]] = {
        "trainer.init_args": {
            "max_epochs": "null",
            "steps": 2,
            "batch_size": 2,
            "output_dir": "run",
            "device": "cpu",
            "num_workers": 0,
        },
        "model": {"hidden_dim": 16, "n_heads": 2, "dim_feedforward": 16, "n_encoder_layers": 1},
    }
    words = [f"--{part}.{k}={v}" for part, values in overrides.items() for k, v in values.items()]
    assert main(["fit", "--config", "native.yaml", *words]) == 0
    assert Path("run/checkpoints/last/pretrained_model/model.safetensors").is_file()
    assert (
        yaml.safe_load(Path("run/checkpoints/last/pretrained_model/config.json").read_text())[
            "dim_model"
        ]
        == 16
    )


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_lightnings_own_checkpoints_in_s3(without_pictures: list[str], s3: Any) -> None:
    """Those go through fsspec, for which s3fs is installed."""
    there = "--trainer.default_root_dir=s3://bucket/runs/act"
    words = [*without_pictures, "--trainer.logger=false", there]
    assert main([*words, "--trainer.max_steps=3"]) == 0
    (saved,) = _checkpoints(s3)
    assert saved.endswith("step=3.ckpt")
    assert main([*words, "--trainer.max_steps=5", f"--ckpt_path=s3://bucket/{saved}"]) == 0
    assert any(name.endswith("step=5.ckpt") for name in _checkpoints(s3))


def _checkpoints(s3: Any) -> list[str]:
    listed = s3.list_objects_v2(Bucket="bucket", Prefix="runs/act/").get("Contents", [])
    return [each["Key"] for each in listed if each["Key"].endswith(".ckpt")]
