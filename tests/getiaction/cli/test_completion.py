import subprocess
from pathlib import Path

import pytest

from foundation.console import EXIT_USAGE
from getiaction.cli import main
from tests.getiaction.cli.conftest import CONFIGS

# What bash does when Tab is pressed at the end of the words.
PRESS_TAB = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
"$(complete -p getiaction | grep -o '_shtab[a-z_]*')"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "getiaction"
    with pytest.MonkeyPatch.context() as patch, path.open("w") as out:
        patch.setattr("sys.stdout", out)
        assert main(["--print_completion", "bash"]) == 0
    return path


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ([""], ["fit", "validate", "test", "predict"]),
        (["va"], ["validate"]),
        (["fit", "--trainer.max_"], [f"--trainer.max_{n}" for n in ("epochs", "steps", "time")]),
        (["fit", "--model", "VQ"], ["VQBeT"]),
        (["fit", "--model.init_args.kl_"], ["--model.init_args.kl_weight"]),
        (["test", "--data.num_rollouts_t"], ["--data.num_rollouts_test"]),
        (["validate", "--ckpt"], ["--ckpt_path"]),
        (["fit", "--config", f"{CONFIGS}/lerobot_tdm"], [f"{CONFIGS}/lerobot_tdmpc.yaml"]),
    ],
)
def test_tab(script: Path, typed: list[str], offered: list[str]) -> None:
    done = subprocess.run(
        ["bash", "-euc", PRESS_TAB, "-", str(script), "getiaction", *typed],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.split() == offered


def test_another_shell(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print_completion=zsh"]) == 0
    assert "trainer.max_epochs" in capsys.readouterr().out


def test_a_shell_without_completion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print_completion", "bosh"]) == EXIT_USAGE
    assert "did you mean 'bash'?" in capsys.readouterr().err
