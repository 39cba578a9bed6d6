"""What the generated table answers: the same as jsonargparse, without importing it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from foundation.console import EXIT_USAGE
from getiaction.cli import command, main, quick
from getiaction.cli.commands import COMMANDS
from tests.getiaction.cli.conftest import CONFIGS

ROOT = Path(__file__).parents[3]
ACT = f"--config={CONFIGS / 'lerobot_act.yaml'}"
DATA = "--data=LeRobotDataModule"

# Refused by the table; jsonargparse must say the same.
REFUSED = [
    ["fit"],
    ["validate", "--model=ACT"],
    ["fit", DATA, "--seed_everything", "3"],
    ["fit", ACT, "--trainer.max_epoch=3"],
    ["fit", ACT, "--trainer.max_epoch", "3", "--data.train_batch_size", "4"],
    ["test", ACT, "--verbos=true"],
    ["fit", ACT, "--verbose=true"],
    ["fit", ACT, "--trainr.max_epochs=3"],
    ["predict", ACT, "--ckptpath=x"],
    ["fit", "--model=ACT", DATA, "--model.chunk_siez=3"],
    ["fit", "--model", "ACT", DATA, "--model.init_args.chunk_siez", "3"],
    ["fit", "--model.class_path=getiaction.policies.lerobot.Diffusion", DATA, "--model.horizn=8"],
    ["fit", ACT, "--model.dim_modle=3"],
    ["fit", ACT, "--data.batchsize=3"],
    ["fit", "--model=ACT", "--data=DataModule", "--data.rot=x"],
]
# Left to jsonargparse.
UNDECIDED = [
    ["fit", ACT],
    ["fit", ACT, "--model=Diffusion", "--model.horizn=8"],
    ["fit", ACT, "--trainer.callbacks+=GymEvaluation", "--trainer.callbacks.max_step=3"],
    ["fit", ACT, "--trainer.logger=CSVLogger", "--trainer.logger.save_dir=logs"],
    ["fit", "--model=OfAPlugin", DATA, "--model.of_its_own=3"],
    ["fit", "--model=LeRobotPolicy", DATA, "--model.policy_name=act"],
    ["fit", "--model=my.own.ACT", DATA, "--model.of_its_own=3"],
    ["fit", "--model=ACT", DATA, "--model.config_kwargs.chunk_size=3", "--data.val_gyms.x=1"],
    ["fit", "--model.help=ACT", "--of_no_use=3"],
    ["fit", "--print_config"],
]


@pytest.fixture
def no_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(argv: list[str]) -> None:
        raise NotImplementedError

    monkeypatch.setattr(command, "run", run)


def complaint(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    assert main(words) == EXIT_USAGE
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_refusals_are_those_of_the_parser(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = command.run
    monkeypatch.setattr(command, "run", None)
    quickly = complaint(capsys, words)
    monkeypatch.setattr(command, "run", run)
    monkeypatch.setattr(quick, "read_table", lambda: None)
    assert complaint(capsys, words) == quickly


@pytest.mark.parametrize("words", UNDECIDED, ids=" ".join)
def test_what_the_table_cannot_decide_goes_on(words: list[str], no_parser: None) -> None:
    assert run_words(words) is NotImplementedError


@pytest.mark.parametrize("change", [{"trainer": {"max_epoch": 3}}, {"ckptpath": "x"}])
def test_keys_of_a_file(
    change: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "config.yaml"
    config = {"model": {"class_path": "ACT"}, "data": {"class_path": "LeRobotDataModule"}}
    path.write_text(yaml.safe_dump(config | change))
    quickly = complaint(capsys, ["fit", f"--config={path}"])
    monkeypatch.setattr(quick, "read_table", lambda: None)
    assert complaint(capsys, ["fit", f"--config={path}"]) == quickly


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_no_configuration_of_ours_is_refused(config: Path, no_parser: None) -> None:
    if "trainer_type" not in config.read_text():
        assert run_words(["fit", f"--config={config}"]) is NotImplementedError


def run_words(words: list[str]) -> type[BaseException] | int:
    """What a command line comes to: the error that stands for the parser, or a status."""
    from getiaction.cli.files import read_configs
    from getiaction.cli.program import _run

    read_configs(words)
    try:
        return _run(words)
    except NotImplementedError as error:
        return type(error)


def test_the_table_is_of_these_sources() -> None:
    table = quick._READER.load_json(quick.TABLE, quick.Table)
    assert quick.digests(table.sources) == table.sources, "run python scripts/option_table.py"
    assert quick.read_table() is not None


@pytest.mark.parametrize("stale", ["versions", "sources", "missing package", "missing source"])
def test_a_table_of_something_else_is_not_used(
    stale: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = quick.read_table()
    assert table is not None
    match stale:
        case "versions":
            table.made_with["lightning"] = "2.5.0"
        case "sources":
            table.sources["train/trainer.py"] = "0" * 64
        case "missing package":
            table.made_with["no-such-package"] = "1"
        case "missing source":
            table.sources["train/no_such.py"] = "0" * 64
    other = tmp_path / "options.json"
    other.write_text(table.model_dump_json())
    monkeypatch.setattr(quick, "TABLE", other)
    assert quick.read_table() is None


@pytest.mark.e2e
def test_the_table_is_what_the_script_writes_now() -> None:
    """And its help is what the parser itself prints, at two widths."""
    write = "import sys; sys.path.insert(0, 'scripts'); import option_table as o; "
    made = python(f"{write}o.deferred_imports.install(); print(o.table(), end='')")
    assert made == quick.TABLE.read_text(), "run python scripts/option_table.py"


@pytest.mark.e2e
@pytest.mark.parametrize(("given", "columns"), [("fit", "80"), ("fit", "143"), ("test", "100")])
def test_help_is_what_the_parser_prints(given: str, columns: str) -> None:
    assert given in COMMANDS
    program = f"import sys; from getiaction.cli import main; sys.argv[1:] = [{given!r}, '--help']; "
    slowly = "from getiaction.cli import quick; quick.read_table = lambda: None; "
    end = "sys.exit(main())"
    assert python(program + end, columns) == python(program + slowly + end, columns)


def python(code: str, columns: str = "80") -> str:
    environment = os.environ | {"COLUMNS": columns}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
