"""What is said of a command line that makes no sense: one line, with what may have been meant."""

from pathlib import Path

import pytest
import yaml

from foundation.console import EXIT_ERROR, EXIT_USAGE
from getiaction.cli import main
from tests.getiaction.cli.conftest import CONFIGS

ACT = f"--config={CONFIGS / 'lerobot_act.yaml'}"


def complaint(capsys: pytest.CaptureFixture[str], *words: str, status: int = EXIT_USAGE) -> str:
    assert main(["fit", *words]) == status
    printed = capsys.readouterr()
    assert printed.out == ""
    prefix = "getiaction: error: "
    (line,) = (line for line in printed.err.splitlines() if not line.startswith("INFO:"))
    assert line.startswith(prefix)
    return line.removeprefix(prefix)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--model.init_args.dim_modle", "3"],
            "model: ACT has no option 'dim_modle' (did you mean 'dim_model'?)",
        ),
        (
            ["--model.dim_modle=3"],
            "model: ACT has no option 'dim_modle' (did you mean 'dim_model'?)",
        ),
        (["--model.dim_model=x"], "model.dim_model: 'x' is not a valid int"),
        (["--model=ACTT"], "model: there is no class 'ACTT' (did you mean 'ACT'?)"),
        (
            ["--data=getiaction.data.LeRobotDataModul"],
            "data: there is no class 'getiaction.data.LeRobotDataModul' "
            "(did you mean 'LeRobotDataModule'?)",
        ),
        (
            ["--trainer.max_epoch=3"],
            "there is no option '--trainer.max_epoch' (did you mean '--trainer.max_epochs'?)",
        ),
        (["--trainer.max_epochs=x"], "trainer.max_epochs: 'x' is not one of: int, null"),
        (
            ["--trainer.logger=CSVLoger"],
            "trainer.logger: there is no class 'CSVLoger' (did you mean 'CSVLogger'?)",
        ),
        (
            ["--trainer.callbacks+=GymEvaluation", "--trainer.callbacks.max_step=3"],
            "trainer.callbacks: GymEvaluation has no option 'max_step' (did you mean 'max_steps'?)",
        ),
        (["stray"], "unexpected 'stray'; expected --name value"),
        (
            ["--model=LeRobotPolicy", "--model.policy_name=act", "--model.chunk_size=3"],
            "model: LeRobotPolicy has no option 'chunk_size'; "
            "name the policy's own class, as in --model ACT",
        ),
    ],
)
def test_a_mistake_on_the_command_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert complaint(capsys, ACT, *words) == said


POLICY = "getiaction.policies.lerobot.LeRobotPolicy"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"model": {"class_path": "ACT", "init_args": {"dim_modle": 3}}},
            "model: ACT has no option 'dim_modle' (did you mean 'dim_model'?)",
        ),
        (
            {"model": {"class_path": "getiaction.policies.lerobot.ACTT"}},
            "there is no class 'getiaction.policies.lerobot.ACTT' (did you mean 'ACT'?)",
        ),
        (
            {"model": {"class_path": "nowhere.ACT"}},
            "there is no class 'nowhere.ACT' (No module named 'nowhere')",
        ),
        (
            {"model": {"class_path": POLICY, "init_args": {}}},
            f"{POLICY} needs a policy_name among its init_args, e.g. act",
        ),
        (
            {
                "model": {
                    "class_path": POLICY,
                    "init_args": {"policy_name": "diffusion", "config_kwargs": {"down_dim": [3]}},
                }
            },
            "model: Diffusion has no option 'down_dim' (did you mean 'down_dims'?)",
        ),
        (
            {
                "model": {
                    "class_path": POLICY,
                    "init_args": {
                        "policy_name": "act",
                        "dim_model": 3,
                        "config_kwargs": {"dim_model": 4},
                    },
                }
            },
            "given twice, also in config_kwargs: dim_model",
        ),
        (
            {"data": {"class_path": "LeRobotDataModule", "init_args": {"batchsize": 3}}},
            "data: LeRobotDataModule has no option 'batchsize' (did you mean 'batch_size'?)",
        ),
        (
            {
                "data": {
                    "class_path": "LeRobotDataModule",
                    "init_args": {
                        "val_gyms": {"class_path": "PushTGym", "init_args": {"obs_tipe": "state"}}
                    },
                }
            },
            "data.val_gyms: PushTGym has no option 'obs_tipe' (did you mean 'obs_type'?)",
        ),
        (
            {"trainr": {"max_epochs": 3}},
            "there is no option 'trainr.max_epochs' (did you mean 'trainer.max_epochs'?)",
        ),
        ({"trainer": "soon"}, "trainer: 'soon' is neither a mapping nor a file with one"),
    ],
)
def test_a_mistake_in_a_file(
    change: dict[str, object], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {
        "model": {"class_path": "ACT"},
        "data": {"class_path": "LeRobotDataModule", "init_args": {"repo_id": "lerobot/pusht"}},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config | change))
    assert complaint(capsys, f"--config={path}") == said


def test_nothing_to_train(capsys: pytest.CaptureFixture[str]) -> None:
    assert complaint(capsys) == (
        "what is still needed: data and model; give --config FILE.yaml (see getiaction fit --help)"
    )


def test_a_policy_that_lerobot_never_had(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"model: {{class_path: {POLICY}, init_args: {{policy_name: ppo}}}}")
    said = complaint(capsys, f"--config={path}", status=EXIT_ERROR)
    assert "'ppo' has never been a LeRobot policy; it offers: act, diffusion" in said


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_what_a_class_refuses_comes_out_whole(capsys: pytest.CaptureFixture[str]) -> None:
    # jsonargparse wraps it in the alternatives of the type that it was trying.
    said = complaint(capsys, ACT, "--data.train_batch_size=0", status=EXIT_ERROR)
    assert said == "batch_size is 0; expected at least 1"


def test_a_class_name_that_two_have(capsys: pytest.CaptureFixture[str]) -> None:
    said = complaint(capsys, ACT, "--trainer.callbacks+=ModelCheckpoint")
    assert said == (
        "trainer.callbacks: 'ModelCheckpoint' may be lightning.pytorch.callbacks.ModelCheckpoint "
        "or getiaction.train.callbacks.ModelCheckpoint"
    )
