from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from getiaction.errors import GetiactionError
from getiaction.policies.lerobot import LeRobotPolicy
from getiaction.train import Trainer
from getiaction.trainers import BaseTrainer, LeRobotTrainer, LightningTrainer, run_config
from tests.getiaction.train.runs import BATCH, SEED, SMALL
from tests.getiaction.train.small import data, policy, trainer

NATIVE: dict[str, Any] = {
    "batch_size": BATCH,
    "seed": SEED,
    "num_workers": 0,
    "device": "cpu",
    "log_freq": 0,
}


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(checkpoint / "pretrained_model/model.safetensors")
    return found


def test_lerobots_own_loop_gives_what_ours_gives(
    state_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["train"])
    native = LeRobotTrainer(max_epochs=1, learning_rate=2e-3, output_dir=tmp_path / "n", **NATIVE)
    last = native.fit(policy_type="act", root=state_root, **SMALL)
    # 34 frames in batches of 6.
    assert last == tmp_path / "n" / "checkpoints" / "last"
    assert last.readlink() == Path("000006")
    ours = policy(optimizer_lr=2e-3)
    trainer(tmp_path / "o").fit(ours, data(state_root))
    trained = ours.lerobot_policy.state_dict()
    for name, weight in weights(last).items():
        assert torch.equal(trained[name], weight), name


def test_a_configuration_for_lerobot(
    state_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["train"])
    path = tmp_path / "config.yaml"
    init_args = {**NATIVE, "steps": 1, "learning_rate": 1e-4, "output_dir": str(tmp_path / "run")}
    # The document's other name of ACT's width.
    fields = {"hidden_dim" if name == "dim_model" else name: SMALL[name] for name in SMALL}
    for class_path in ("LeRobotTrainer", "getiaction.trainers.LeRobotTrainer"):
        init_args["output_dir"] = str(tmp_path / class_path)
        config = {
            "trainer_type": "lerobot",
            "trainer": {"class_path": class_path, "init_args": init_args},
            "model": {"policy_type": "act", **fields},
            "data": {"repo_id": "local/small", "root": str(state_root)},
        }
        path.write_text(yaml.safe_dump(config))
        assert isinstance(run_config(path), LeRobotTrainer)
        assert (tmp_path / class_path / "checkpoints" / "000001").is_dir()


def test_a_configuration_for_lightning(state_root: Path, tmp_path: Path) -> None:
    made = []
    for _ in range(2):
        config = {
            "trainer_type": "lightning",
            "seed_everything": 3,
            "trainer": {
                "class_path": "LightningTrainer",
                "init_args": {
                    "max_steps": 1,
                    "accelerator": "cpu",
                    "logger": False,
                    "enable_checkpointing": False,
                    "enable_progress_bar": False,
                    "enable_model_summary": False,
                    "default_root_dir": str(tmp_path),
                },
            },
            "model": {"class_path": "ACT", "init_args": SMALL},
            "data": {"root": str(state_root), "train_batch_size": 4},
        }
        run: Any = run_config(config)
        assert type(run) is Trainer
        assert run.global_step == 1
        module: Any = run.lightning_module
        assert isinstance(module, LeRobotPolicy)
        loader: Any = run.train_dataloader
        assert loader.batch_sampler.batch_size == 4
        made.append(module.lerobot_policy.state_dict())
    assert all(torch.equal(made[1][name], weight) for name, weight in made[0].items())


def test_one_kind_of_trainer() -> None:
    assert LightningTrainer is Trainer
    assert issubclass(LightningTrainer, BaseTrainer)
    run = LightningTrainer.from_dict({"max_epochs": 3, "accelerator": "cpu"})
    assert run.max_epochs == 3
    config = {"class_path": "LeRobotTrainer", "init_args": {"steps": 5}}
    assert LeRobotTrainer.from_dict(config).options == {"steps": 5}


GOOD = {"trainer_type": "lerobot", "model": {}, "data": {"repo_id": "a/b"}}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"trainer_type": "torch"}, "^trainer_type is 'torch'; expected: lightning or lerobot$"),
        ({"trainer_type": "lightning", "data": {}}, "has no 'model'"),
        ({**GOOD, "data": None}, "has no 'data'"),
        ({**GOOD, "optimiser": 1}, "^there is no 'optimiser' here; expected: trainer_type"),
        ({**GOOD, "data": {"repo_id": "a/b", "batch": 1}}, "repo_id and root, not: batch$"),
        (
            {**GOOD, "trainer": {"class_path": "LightningTrainer", "init_args": {}}},
            "^trainer_type is 'lerobot', but the trainer is a Trainer$",
        ),
        (
            {**GOOD, "trainer": {"class_path": "LeRobotTrainer", "init_args": {"bach_size": 1}}},
            "^lerobot-train has no option 'bach_size' .did you mean 'batch_size'",
        ),
        (
            {**GOOD, "trainer": {"max_epochs": 1, "steps": 2}},
            "^give either max_epochs or steps, not both: 1 and 2$",
        ),
        ({**GOOD, "model": {"policy_type": "act", "dim_modle": 1}}, "did you mean 'dim_model'"),
    ],
)
def test_refusals(config: dict[str, Any], message: str) -> None:
    with pytest.raises(GetiactionError, match=message) as caught:
        run_config(config)
    assert "\n" not in str(caught.value)
