"""What is answered before anything heavy is imported."""

import io
import signal
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from foundation.console import EXIT_ERROR, EXIT_USAGE
from getiaction.cli import main
from getiaction.cli.commands import COMMANDS

ROOT = Path(__file__).parents[3]


def test_the_program_is_installed_under_its_name() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, name = scripts["getiaction"].partition(":")
    assert getattr(import_module(module), name) is main


@pytest.mark.parametrize("flag", ["--help", "-h", "help"])
def test_help_names_the_commands(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([flag]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n  {command} " in printed for command in COMMANDS)


def test_nothing_given_is_a_usage_error_that_helps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == EXIT_USAGE
    assert "usage: getiaction" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["fitt"], ["fit", "--config", "nowhere.yaml"]]
)
def test_light_answers_import_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys; from getiaction.cli import main; main(sys.argv[1:]); "
        "heavy = {'torch', 'lightning', 'lerobot', 'jsonargparse'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_package_that_is_not_installed_names_its_extra() -> None:
    code = (
        "import sys; from getiaction.cli import main; sys.modules['torch'] = None; "
        "sys.exit(main(['fit', '--config', 'configs/lerobot_act.yaml']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == EXIT_ERROR
    assert done.stderr.startswith("getiaction: error: this needs the package 'torch'")
    assert done.stderr.endswith("`make` or `uv run --extra train`\n")


def test_a_mistyped_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fitt"]) == EXIT_USAGE
    assert capsys.readouterr().err == (
        "getiaction: error: there is no command 'fitt' (did you mean 'fit'?); the commands are: "
        "fit, validate, test, predict\n"
    )


@pytest.mark.parametrize("flag", [["--config", "a.yaml"], ["--config=a.yaml"], ["-c", "a.yaml"]])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no configuration file a.yaml"),
        ("model: [", "the configuration a.yaml is not YAML: while parsing"),
        ("- model", "the configuration a.yaml is a list; expected names and their values"),
        ("# to do\n", "the configuration a.yaml is empty; expected names and their values"),
        ("trainer_type: lerobot", "the configuration has no 'model', or it is not a mapping"),
    ],
)
def test_a_configuration_that_cannot_be_used(
    flag: list[str],
    content: str | None,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("a.yaml").write_text(content)
    assert main(["fit", *flag]) != 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"getiaction: error: {message}")


def test_a_directory_in_place_of_a_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--config", str(tmp_path)]) == EXIT_USAGE
    assert "is a directory; expected a file" in capsys.readouterr().err


def interrupted(argv: list[str]) -> int:
    raise KeyboardInterrupt


def stopped_by_lightning(argv: list[str]) -> int:
    try:
        return interrupted(argv)
    except KeyboardInterrupt:
        sys.exit(1)


@pytest.mark.parametrize("run", [interrupted, stopped_by_lightning])
def test_ctrl_c(
    run: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("getiaction.cli.program._run", run)
    assert main(["fit"]) == 128 + signal.SIGINT
    assert capsys.readouterr().err == "getiaction: interrupted\n"


def test_sigterm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Lightning makes of it an end without a status, which is success to whoever started it."""
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    def terminated(argv: list[str]) -> int:
        raise SIGTERMException

    monkeypatch.setattr("getiaction.cli.program._run", terminated)
    assert main(["fit"]) == 143
    assert "SIGTERM: ended; --ckpt_path resumes" in capsys.readouterr().err


def failing(argv: list[str]) -> int:
    raise RuntimeError("never thought of")


def test_a_bug_shows_where_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("getiaction.cli.program._run", failing)
    assert main(["fit"]) == 1
    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert "this is a bug" in printed


def test_a_traceback_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GETIACTION_TRACEBACK", "1")
    assert main(["fit", "--config", str(tmp_path / "nowhere.yaml")]) == EXIT_USAGE
    assert "Traceback" in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_person_who_waits_is_told_what_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "getiaction.cli.command", raising=False)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert main(["fit", "--config", str(ROOT / "configs/lerobot_act.yaml")]) == EXIT_ERROR
    waiting, refusal = terminal.getvalue().splitlines()
    assert waiting == "getiaction fit: loading PyTorch, Lightning and LeRobot ..."
    assert "needs the package 'torch'" in refusal
