"""Every file in ``configs/`` is parsed, written out, and trained with for a step."""

from pathlib import Path

import pytest
import yaml

from getiaction.cli import main
from tests.getiaction.cli.conftest import CONFIGS, Enter
from tests.getiaction.hub import INSERTION, PUSHT, TRANSFER, Recording

SMALL_ACT = ["dim_model=32", "n_heads=2", "dim_feedforward=32", "n_encoder_layers=1"]
SMALL_DIFFUSION = ["down_dims=[16,32,64]", "num_inference_steps=2"]
# What two cores can do in seconds; which policy, which data and how they belong together stays.
SMALLER: dict[str, tuple[Recording, list[str], list[str]]] = {
    "lerobot_act_simple": (PUSHT, SMALL_ACT, []),
    "lerobot_act": (TRANSFER, SMALL_ACT, []),
    "lerobot_diffusion_universal": (PUSHT, SMALL_DIFFUSION, []),
    "lerobot_diffusion_alias": (PUSHT, SMALL_DIFFUSION, []),
    "lerobot_diffusion": (PUSHT, SMALL_DIFFUSION, ["max_episode_steps=2"]),
    "lerobot_vqbet_universal": (INSERTION, ["gpt_hidden_dim=32", "gpt_n_layer=1"], []),
    "lerobot_tdmpc": (PUSHT, ["mlp_dim=32"], []),
}


def test_every_file_is_tried() -> None:
    # The file of the simulator needs it, and is tried in tests/positronic.
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == {*SMALLER, "stack_cubes"}


@pytest.mark.parametrize("name", SMALLER)
def test_a_step_of_training(
    name: str, enter_hub: Enter, capsys: pytest.CaptureFixture[str]
) -> None:
    recording, model, data = SMALLER[name]
    enter_hub(recording)
    status = main(
        [
            "fit",
            f"--config={CONFIGS / name}.yaml",
            "--trainer.fast_dev_run=1",
            "--trainer.accelerator=cpu",
            f"--data.init_args.train_batch_size={2 if recording is PUSHT else 1}",
            *(f"--model.init_args.{setting}" for setting in model),
            *(f"--data.init_args.{setting}" for setting in data),
        ]
    )
    printed = capsys.readouterr()
    assert status == 0, printed.err
    assert "train/loss=" in printed.err


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_what_is_printed_is_what_is_run(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", f"--config={path}", "--print_config"]) == 0
    first = capsys.readouterr().out
    again = tmp_path / "again.yaml"
    again.write_text(first)
    assert main(["fit", f"--config={again}", "--print_config"]) == 0
    assert capsys.readouterr().out == first
    assert yaml.safe_load(first)["seed_everything"] == 1000
    # Nothing of the file is lost on the way.
    given, printed = yaml.safe_load(path.read_text()), yaml.safe_load(first)
    for part in ("model", "data"):
        arguments = dict(given[part]["init_args"])
        arguments |= arguments.pop("config_kwargs", {})
        arguments.pop("policy_name", None)
        for key, value in arguments.items():
            if not isinstance(value, dict):
                assert (
                    _number(printed[part]["init_args"][key]) == _number(value) or key == "val_gyms"
                )


BARE = """
model: {class_path: LeRobotPolicyAdapter, init_args: {policy_name: vqbet, gpt_n_layer: 2}}
data: {class_path: LeRobotDataModule, init_args: {repo_id: lerobot/pusht, val_gyms: CartPole-v1}}
trainer: {callbacks: [{class_path: ModelCheckpoint, init_args: {monitor: val/gym/success}}]}
"""


def test_bare_names_are_those_of_this_package(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bare.yaml"
    path.write_text(BARE)
    # A nested field on the command line stands beside the flat ones of the file.
    more = "--model.init_args.config_kwargs.gpt_n_head=4"
    assert main(["fit", f"--config={path}", more, "--print_config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["class_path"] == "getiaction.policies.lerobot.VQBeT"
    arguments = printed["model"]["init_args"]
    assert (arguments["gpt_n_layer"], arguments["gpt_n_head"]) == (2, 4)
    (callback,) = printed["trainer"]["callbacks"]
    assert callback["class_path"] == "getiaction.train.callbacks.ModelCheckpoint"
    # A gym's id is no class.
    assert printed["data"]["init_args"]["val_gyms"] == "CartPole-v1"


def _number(value: object) -> object:
    """PyYAML reads 1e-4 as a string."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
