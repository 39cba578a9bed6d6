"""The code of the four founding documents runs as it is written.

``documents/`` holds their code blocks, word for word. Every block is either run here, with sizes
that two cores can do and with the names that the text around it has spoken of, or stands in
``NOT_RUN`` with the reason.
"""

import shlex
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lerobot.configs import FeatureType
from lerobot.datasets import LeRobotDataset
from lerobot.policies import make_pre_post_processors
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.utils.feature_utils import dataset_to_policy_features
from lightning.pytorch.loggers import WandbLogger

import getiaction.policies.lerobot
from foundation.console import EXIT_ERROR
from getiaction.cli import main
from getiaction.data import DataModule, LeRobotDataModule
from getiaction.gyms import PushTGym
from getiaction.policies.lerobot import (
    ACT,
    Diffusion,
    LeRobotPolicy,
    LeRobotPolicyAdapter,
    VQBeT,
)
from getiaction.train import LightningTrainer, Trainer
from getiaction.train.callbacks import EarlyStopping, GymEvaluation, ModelCheckpoint
from getiaction.trainers import BaseTrainer, LeRobotTrainer
from tests.getiaction.hub import ANY, INSERTION, PUSHT, TRANSFER, Recording, make_hub
from tests.getiaction.snippets import blocks, run, shrink, smaller

pytestmark = pytest.mark.e2e
DOCUMENTS = Path(__file__).parent / "documents"
VERSUS = blocks(DOCUMENTS / "lerobot_vs_getiaction.md")
INTEGRATION = blocks(DOCUMENTS / "lerobot_policy_integration.md")
APPROACHES = blocks(DOCUMENTS / "framework_integration_approaches.md")
REPORT = blocks(DOCUMENTS / "lerobot_config_test_report.md")

SKETCH = "shows how something might be written within this package, not how it is used"
NOT_RUN: dict[str, dict[str, str]] = {
    "lerobot_vs_getiaction": {
        "0": "LeRobot's side alone, and not LeRobot 0.6.1's: it has no lerobot.rl.eval_policy "
        "(evaluation is lerobot.scripts.lerobot_eval.eval_policy), no make_robot_env, and its "
        "policies want batches that their preprocessor has been through",
        "9": "LeRobot's side alone: nothing of this package in it",
    },
    "lerobot_policy_integration": {
        "0": SKETCH,
        "1": SKETCH,
        "2": SKETCH,
        "3": SKETCH,
        "11": "runs tests of another repository's layout",
    },
    "framework_integration_approaches": {"0": SKETCH, "2": SKETCH, "4": SKETCH},
    "lerobot_config_test_report": {
        "6": SKETCH,
        "9": SKETCH,
        "10": SKETCH,
        "11": SKETCH,
        "12": "a part of block 0",
    },
}
# Written as [0.0, 0.1, ..., 1.5] in the report, which is no list of numbers.
SIXTEEN = f"[{', '.join(f'{i / 10:.1f}' for i in range(16))}]"
TEN = f"[{', '.join(f'{i / 10:.1f}' for i in range(10))}]"


@pytest.fixture
def world(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """A small world with the given datasets, and a directory of one's own."""
    shrink(monkeypatch)
    monkeypatch.chdir(tmp_path)

    def enter(*recordings: Recording) -> None:
        make_hub(tmp_path_factory, *recordings).enter(monkeypatch)

    return enter


def pusht() -> LeRobotDataModule:
    return LeRobotDataModule(repo_id="lerobot/pusht", train_batch_size=4)


def pusht_with_gyms() -> DataModule:
    return DataModule(
        train_dataset=pusht().train_dataset,
        train_batch_size=4,
        val_gyms=PushTGym(),
        num_rollouts_val=1,
        test_gyms=PushTGym(),
        num_rollouts_test=1,
    )


def test_every_block_is_run_or_explained() -> None:
    source = Path(__file__).read_text()
    documents = {
        "lerobot_vs_getiaction": ("VERSUS", VERSUS),
        "lerobot_policy_integration": ("INTEGRATION", INTEGRATION),
        "framework_integration_approaches": ("APPROACHES", APPROACHES),
        "lerobot_config_test_report": ("REPORT", REPORT),
    }
    for document, (name, found) in documents.items():
        for number in found:
            is_run = f'{name}["{number}"]' in source
            assert is_run != (number in NOT_RUN[document]), (document, number)


# -- lerobot_vs_getiaction


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_training_with_validation_and_test(world: Any) -> None:
    world(PUSHT)
    names = run(VERSUS["1"], {})
    trainers: list[Any] = []
    original = names["Trainer"]

    def listen(**kwargs: Any) -> Any:
        trainers.append(original(**kwargs))
        return trainers[-1]

    names["Trainer"] = listen
    names["train_getiaction"]()
    (trainer,) = trainers
    assert trainer.global_step == 2
    assert {"val/gym/success", "test/gym/success"} & set(trainer.logged_metrics)


def test_the_same_loss(world: Any) -> None:
    world(PUSHT)
    data = pusht()
    module = ACT(chunk_size=10).create(data.meta)
    data.prepare(module.config)
    batch = module.prepare_batch(next(iter(data.train_dataloader())))
    native = module.lerobot_policy
    torch.manual_seed(0)
    names = run(VERSUS["2"], {"policy": native, "self": module, "batch": batch})
    # LeRobot's forward gives the loss and what may be logged; so does the last line.
    torch.manual_seed(0)
    loss, _ = native.forward(batch)
    torch.manual_seed(0)
    assert torch.equal(module(batch), loss)
    assert isinstance(names["loss"], tuple)


def test_the_same_rollout(world: Any) -> None:
    world(PUSHT)
    policy = ACT.from_dataset("lerobot/pusht", chunk_size=10)
    names = run(VERSUS["4"], {"PushTGym": PushTGym})
    env = names["env"]
    observation, _ = env.reset(seed=0)
    # LeRobot's loop, the first of the two, never ends as it is written.
    ours = "# getiaction's rollout()" + VERSUS["3"].partition("# getiaction's rollout()")[2]
    names = run(ours, {"policy": policy, "env": env, "observation": observation, "max_steps": 4})
    assert names["step"] == 3
    assert {"is_success"} <= set(names["info"])


def test_validation_within_epochs(world: Any) -> None:
    world(PUSHT)
    names: dict[str, Any] = {
        "Trainer": Trainer,
        "GymEvaluation": GymEvaluation,
        "policy": ACT(chunk_size=10),
    }
    names = run(VERSUS["5"], names | {"datamodule": pusht_with_gyms()})
    assert "val/gym/success" in names["trainer"].callback_metrics


def test_experiment_tracking(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world(PUSHT)
    monkeypatch.setenv("WANDB_MODE", "offline")
    names = run(
        VERSUS["6"],
        {"Trainer": Trainer, "GymEvaluation": GymEvaluation, "WandbLogger": WandbLogger},
    )
    assert isinstance(names["trainer"].logger, WandbLogger)


def test_production(world: Any) -> None:
    world(PUSHT)
    names: dict[str, Any] = {
        "Trainer": Trainer,
        "GymEvaluation": GymEvaluation,
        "ModelCheckpoint": ModelCheckpoint,
        "EarlyStopping": EarlyStopping,
    }
    trainer = run(VERSUS["7"], names)["trainer"]
    trainer.fit(ACT(chunk_size=10), pusht_with_gyms())
    checkpoint = next(c for c in trainer.callbacks if isinstance(c, ModelCheckpoint))
    assert checkpoint.best_model_score is not None


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_ways_to_validate(world: Any) -> None:
    world(PUSHT)
    names: dict[str, Any] = {
        "trainer": Trainer(logger=False),
        "policy": ACT(chunk_size=10),
        "datamodule": pusht_with_gyms(),
        "env": PushTGym(),
    }
    stats = run(VERSUS["8"], names)["stats"]
    assert stats["aggregated"]["n_episodes"] == len(stats["per_episode"]) == 2


def test_migration(world: Any) -> None:
    world(PUSHT)
    policy = run(VERSUS["10"], {})["policy"]
    names: dict[str, Any] = {
        "DataModule": DataModule,
        "PushTGym": PushTGym,
        "Trainer": Trainer,
        "GymEvaluation": GymEvaluation,
        "policy": policy,
        "dataset": pusht().train_dataset,
    }
    # "train_dataset=..." stands for one's own.
    trainer = run(VERSUS["11"].replace("train_dataset=...", "train_dataset=dataset"), names)[
        "trainer"
    ]
    assert trainer.global_step == 2
    assert "val/gym/success" in trainer.callback_metrics


# -- lerobot_policy_integration


def test_outputs_equal_native_ones(world: Any) -> None:
    """The comparison as it is written, around what LeRobot 0.6.1 has moved out of its policies.

    There, a policy does not normalise: ``ACTPolicy`` still takes ``dataset_stats``, and it is
    ``make_pre_post_processors`` that makes what applies them.
    """
    world(PUSHT)
    dataset = LeRobotDataset("lerobot/pusht", return_uint8=False)
    item = dataset[3]
    batch = {k: v[None] for k, v in item.items() if k.startswith("observation.")}

    def processed(policy: ACTPolicy, config: ACTConfig, stats: Any) -> Any:
        before, after = make_pre_post_processors(policy_cfg=config, dataset_stats=stats)
        original = policy.select_action
        policy.select_action = lambda observation: after(original(before(dict(observation))))
        return policy

    def native_policy(config: ACTConfig, dataset_stats: Any) -> Any:
        return processed(ACTPolicy(config, dataset_stats=dataset_stats), config, dataset_stats)

    features = dataset_to_policy_features(dataset.meta.features)
    config = ACTConfig(
        input_features={k: f for k, f in features.items() if f.type is not FeatureType.ACTION},
        output_features={"action": features["action"]},
        device="cpu",
        dim_model=32,
        n_heads=2,
        dim_feedforward=32,
        n_encoder_layers=1,
    )
    names: dict[str, Any] = {
        "LeRobotDataset": LeRobotDataset,
        "dataset_to_policy_features": dataset_to_policy_features,
        "torch": torch,
        "ACT": lambda input_features: ACT(
            input_features=input_features, output_features=input_features, stats=dataset.meta.stats
        ),
        "ACTPolicy": native_policy,
        "config": config,
        "stats": dataset.meta.stats,
        "batch": batch,
    }
    names = run(INTEGRATION["4"].replace("features, ...)", "features)"), names)
    assert torch.equal(names["wrapped_output"], names["native_output"])
    # In pixels of the picture, not in the network's units.
    assert names["wrapped_output"].abs().max() > 10


COMMANDS = [
    words
    for block in (INTEGRATION["5"], REPORT["1"], REPORT["3"], REPORT["5"], REPORT["8"])
    for words in block.replace("\\\n", " ").splitlines()
    if words.startswith("getiaction")
]
PRODUCTION = [*REPORT["13"].splitlines(), *REPORT["14"].splitlines()]


@pytest.mark.parametrize("command", dict.fromkeys([*COMMANDS, *PRODUCTION]))
def test_commands(command: str, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world(PUSHT, TRANSFER, INSERTION)
    words = shlex.split(command)
    assert words.pop(0) == "getiaction"
    words = [str(Path(__file__).parents[2] / w) if w.startswith("configs/") else w for w in words]
    small = ["--data.train_batch_size=1", "--trainer.max_steps=1", "--trainer.log_every_n_steps=1"]
    if "dim_model" in command:
        words[words.index("1024")] = "64"
    assert main([*words, *small]) == 0


# Lightning's own trainer, as the document has it, says what ours keeps quiet about.
@pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:Total length of `list` across ranks is zero",
    r"ignore:.*isinstance\(treespec, LeafSpec\)",
)
def test_explicit_policy(world: Any) -> None:
    world(PUSHT)
    names: dict[str, Any] = {
        "dataset_to_policy_features": dataset_to_policy_features,
        "L": L,
        "datamodule": pusht(),
    }
    names = run(INTEGRATION["6"], names)
    assert names["trainer"].global_step == 2


def fit_yaml(text: str, *more: str) -> int:
    Path("config.yaml").write_text(text)
    small = ["--data.init_args.train_batch_size=2", "--trainer.fast_dev_run=1"]
    return main(["fit", "--config=config.yaml", *small, *more])


def test_universal_policy_in_yaml(world: Any) -> None:
    world(PUSHT)
    # The two lines with "..." stand for features; they come from the dataset.
    text = "".join(line for line in INTEGRATION["7"].splitlines(True) if ": ..." not in line)
    data = "data: {class_path: LeRobotDataModule, init_args: {repo_id: lerobot/pusht}}"
    assert fit_yaml(smaller(text) + data) == 0


def test_universal_policy(world: Any) -> None:
    world(PUSHT)
    meta = LeRobotDataset("lerobot/pusht").meta
    features = dataset_to_policy_features(meta.features)
    names = run(INTEGRATION["8"], {"features": features, "stats": meta.stats})
    assert type(names["policy"]) is Diffusion
    assert names["policy"].config.down_dims == (16, 32, 64)
    assert set(names["policy"].config.output_features) == {"action"}


def test_data_module(world: Any) -> None:
    world(PUSHT)
    data = run(INTEGRATION["9"], {})["datamodule"]
    assert data.train_batch_size == 4


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
def test_native_data_loader(world: Any) -> None:
    world(PUSHT)
    names: dict[str, Any] = {"trainer": Trainer(logger=False), "policy": ACT(chunk_size=1)}
    names = run(INTEGRATION["10"], names)
    assert names["trainer"].global_step == 2


# -- framework_integration_approaches


def test_trainers_share_an_interface() -> None:
    assert issubclass(LeRobotTrainer, BaseTrainer)
    assert issubclass(LightningTrainer, BaseTrainer)


class MyNativePolicy(ACT):
    """What the document calls its own policy."""


def test_configurations_by_trainer_type(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world(ANY)
    monkeypatch.setattr(
        getiaction.policies.lerobot, "MyNativePolicy", MyNativePolicy, raising=False
    )
    lightning, lerobot = smaller(APPROACHES["1"]).split("\n\n")
    # The document leaves the data out.
    data = '\ndata: {repo_id: "lerobot/dataset"}\n'
    Path("lightning.yaml").write_text(lightning + data)
    Path("lerobot.yaml").write_text(lerobot + data)
    assert main(["fit", "--config=lightning.yaml", "--data.train_batch_size=4"]) == 0
    assert list(Path().glob("**/*.ckpt"))
    assert main(["fit", "--config=lerobot.yaml", *NATIVE_SMALL]) == 0
    assert Path("run/checkpoints/last").is_dir()


# 100 epochs are for another day.
NATIVE_SMALL = [
    "--trainer.init_args.max_epochs=1",
    "--trainer.init_args.batch_size=40",
    "--trainer.init_args.num_workers=0",
    "--trainer.init_args.device=cpu",
    "--trainer.init_args.output_dir=run",
]


def test_configuration_of_the_first_phase(world: Any) -> None:
    world(TRANSFER)
    Path("config.yaml").write_text(smaller(APPROACHES["6"]))
    assert (
        main(["fit", "--config=config.yaml", *NATIVE_SMALL, "--trainer.init_args.batch_size=8"])
        == 0
    )
    assert Path("run/checkpoints/last").is_dir()


def test_policy_adapter(world: Any) -> None:
    world(ANY)
    names: dict[str, Any] = {
        "LightningTrainer": LightningTrainer,
        "LeRobotPolicyAdapter": LeRobotPolicyAdapter,
        "LeRobotDataModule": LeRobotDataModule,
    }
    names = run(APPROACHES["3"], names)
    assert names["trainer"].global_step == 2
    assert names["policy"].config.dim_model == 32


def test_policy_classes(world: Any) -> None:
    world(PUSHT)
    names = run(APPROACHES["5"], {"LightningTrainer": LightningTrainer, "datamodule": pusht()})
    assert names["policy"].config.optimizer_lr == 1e-4
    assert {names["Diffusion"], names["VQBeT"]} == {Diffusion, VQBeT}
    assert run(APPROACHES["7"], {"datamodule": pusht()})["trainer"].global_step == 2


def test_all_phases(world: Any) -> None:
    world(ANY)
    names: dict[str, Any] = {
        "LeRobotTrainer": LeRobotTrainer,
        "LightningTrainer": LightningTrainer,
        "ACT": ACT,
        "LeRobotPolicyAdapter": LeRobotPolicyAdapter,
        "datamodule": LeRobotDataModule(repo_id="lerobot/dataset", train_batch_size=4),
        "trainer": LightningTrainer(logger=False),
    }
    names = run(APPROACHES["8"], names)
    assert isinstance(names["policy"], LeRobotPolicy)
    assert names["trainer"].global_step == 2
    assert list(Path("outputs/train").glob("*/*/checkpoints/last"))


# -- lerobot_config_test_report


def test_the_report_trains_as_it_is_written(world: Any) -> None:
    world(PUSHT)
    assert fit_yaml(smaller(REPORT["0"])) == 0


@pytest.mark.parametrize(
    ("text", "recording", "refused"),
    [
        # Every fifth frame of 50 a second.
        (REPORT["2"], TRANSFER, "action"),
        # Diffusion and VQ-BeT begin in the past.
        (REPORT["4"].replace("[0.0, 0.1, ..., 1.5]", SIXTEEN), PUSHT, "action"),
        (REPORT["7"].replace("[0.0, 0.1, ..., 0.9]", TEN), INSERTION, "action"),
        (REPORT["15"].replace("[0.0, 0.1, ..., 1.5]", SIXTEEN), PUSHT, "action"),
    ],
    ids=["act", "diffusion", "vqbet", "template"],
)
def test_wrong_delta_timestamps_are_refused_and_unneeded(
    text: str,
    recording: Recording,
    refused: str,
    world: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    world(recording)
    assert fit_yaml(smaller(text)) == EXIT_ERROR
    last = capsys.readouterr().err.splitlines()[-1]
    assert "delta_timestamps" in last
    assert refused in last
    without = text[: text.index("    delta_timestamps:")]
    # In the template, LeRobot's default of 32 steps does not fit the horizon of 16.
    assert (
        fit_yaml(smaller(without), *(["--model.n_action_steps=8"] if text == REPORT["15"] else []))
        == 0
    )
