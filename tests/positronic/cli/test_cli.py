"""What a person sees of a command line: help, one-line errors, exit statuses."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import configuronic as cfn
import pytest

from positronic import cli
from positronic.errors import DatasetError

MAIN = "from positronic.storage import main"
EXAMPLE = "example: prog show here"
seen: list[tuple[object, ...]] = []


@cfn.config(num_iterations=1)
def timed(num_iterations: int, show_gui: bool = False) -> tuple[int, bool]:
    """Play for a while.

    Args:
        num_iterations: How many rollouts.
        show_gui: Open a window.
    """
    return num_iterations, show_gui


@cfn.config()
def other() -> str:
    """Stand in for the timed driver."""
    return "other"


@cfn.config()
def broken() -> None:
    """Fail as a nested config."""
    raise DatasetError("no episodes in x;\n record some")


@cfn.config(driver=timed)
def roll(
    output_dir: str,
    driver: object,
    seed: int = 0,
    rate: float = 0.5,
    checkpoint: str | None = None,
    sizes: object = (1, 2),
) -> None:
    """Roll out a policy.

    Args:
        output_dir: Where the recordings
            go.
        driver: How it is driven.
    """
    seen.append((output_dir, driver, seed, rate, checkpoint, sizes))


@cfn.config()
def count(number: int) -> int:
    """Return a status.

    Args:
        number: The status.
    """
    return number


@cfn.config()
def crash() -> None:
    """Have a bug."""
    raise RuntimeError("boom")


@cfn.config()
def stop() -> None:
    """Be interrupted."""
    raise KeyboardInterrupt


COMMANDS = {"roll": roll, "count": count, "crash": crash, "stop": stop}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--output_dir=123"], ("123", (1, False), 0, 0.5, None, (1, 2))),
        (["here", "--seed", "4"], ("here", (1, False), 4, 0.5, None, (1, 2))),
        (["x", "--checkpoint=010000"], ("x", (1, False), 0, 0.5, "010000", (1, 2))),
        (["x", "--checkpoint=10000"], ("x", (1, False), 0, 0.5, "10000", (1, 2))),
        (["x", "--rate=2", "--sizes=[64,64]"], ("x", (1, False), 0, 2.0, None, [64, 64])),
        (["x", "--driver.show_gui"], ("x", (1, True), 0, 0.5, None, (1, 2))),
        (["x", "--driver.num-iterations=3"], ("x", (3, False), 0, 0.5, None, (1, 2))),
        (["x", "--driver=.other"], ("x", "other", 0, 0.5, None, (1, 2))),
        (["x", f"--driver=@{__name__}.other"], ("x", "other", 0, 0.5, None, (1, 2))),
    ],
)
def test_flags_reach_the_command(words: list[str], expected: tuple[object, ...]) -> None:
    seen.clear()
    assert cli.status(COMMANDS, "prog", ["roll", *words]) == 0
    assert seen == [expected]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["rol"], "there is no command 'rol' (did you mean 'roll'?)"),
        (["roll"], "still needed: --output_dir=..."),
        (["roll", "a", "b"], "'b' is not a flag"),
        (["roll", "a", "--sed=1"], "there is no flag --sed (did you mean '--seed'?)"),
        (["roll", "a", "--driver.num=1"], "there is no flag --driver.num"),
        (["roll", "a", "--seed=abc"], "--seed=abc: expected int"),
        (["roll", "a", "--seed=True"], "--seed=True: expected int"),
        (["roll", "a", "--seed.x=1"], "seed is a plain value"),
        (
            ["roll", "a", "--driver=.tmied"],
            "has no 'tmied' (did you mean 'timed'?); it offers: timed",
        ),
        (["roll", "a", "--driver=@no.such"], "no such module: no.such"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_2(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.status(COMMANDS, "prog", words) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.startswith("prog: error: ")
    assert err.count("\n") == 1


def test_a_known_error_of_a_nested_config_is_one_line_and_exit_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["roll", "a", f"--driver=@{__name__}.broken"]
    assert cli.status(COMMANDS, "prog", words) == 1
    assert capsys.readouterr().err == "prog: error: no episodes in x; record some\n"
    monkeypatch.setenv(cli.TRACEBACK_VARIABLE, "1")
    assert cli.status(COMMANDS, "prog", words) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_package_that_is_not_installed_names_its_extra(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @cfn.config()
    def needs() -> None:
        """Import what is not there."""
        import mujoco  # noqa: F401

    monkeypatch.setitem(sys.modules, "mujoco", None)
    assert cli.status({"needs": needs}, "prog", ["needs"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("prog: error: this needs the package 'mujoco'")
    assert "positronic-lightning[sim], in a checkout by `make` or `uv run --extra sim`" in err


TOLD_TO_END = """
import os, signal
import configuronic as cfn
from positronic import cli

@cfn.config()
def work() -> None:
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        print("cleaned up")

cli.run({"work": work}, "prog")
"""


def test_sigterm_lets_a_command_clean_up() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", TOLD_TO_END, "work"], capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout) == (143, "cleaned up\n")
    assert ended.stderr == "prog: interrupted\n"


def test_a_bug_shows_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.status(COMMANDS, "prog", ["crash"]) == 1
    err = capsys.readouterr().err
    assert "RuntimeError: boom" in err
    assert "this is a bug" in err


@cfn.config()
def quoting(bug: bool = False) -> None:
    """Fail with what somebody else said."""
    said = "the server said \x1b]0;owned\x07\x1b[2J\u202e\x9b31m\rprog: all is well" + "x" * 100_000
    if bug:
        raise RuntimeError(said)
    raise DatasetError(said)


@pytest.mark.parametrize("words", [[], ["--bug"], ["--x\x1b[2J=1"], ["\x1b[2J"]])
def test_no_error_says_anything_that_a_terminal_obeys(
    capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert cli.status({"quoting": quoting}, "prog", ["quoting", *words]) in (1, 2)
    err = capsys.readouterr().err
    assert all(c.isprintable() or c == "\n" for c in err)
    if "--bug" not in words:
        assert err.count("\n") == 1
        assert len(err) < 5000


def test_the_traceback_of_a_known_error_says_nothing_that_a_terminal_obeys(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cli.TRACEBACK_VARIABLE, "1")
    assert cli.status({"quoting": quoting}, "prog", ["quoting"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert all(c.isprintable() or c == "\n" for c in err)


def test_statuses() -> None:
    assert cli.status(COMMANDS, "prog", ["count", "3"]) == 3
    assert cli.status(COMMANDS, "prog", ["stop"]) == 130
    with pytest.raises(SystemExit) as ended:
        cli.run(COMMANDS, "prog", ["count", "4"])
    assert ended.value.code == 4


def test_help_explains_each_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.status(COMMANDS, "prog", ["--help"]) == 0
    assert "roll   Roll out a policy." in capsys.readouterr().out
    assert cli.status(COMMANDS, "prog", ["roll", "--driver.num_iterations=7", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--output_dir=...  (required)" in out
    assert "Where the recordings go." in out
    assert "--driver.num_iterations=7   How many rollouts." in out
    assert cli.status(COMMANDS, "prog", []) == 2


def test_usage_shows_what_words_without_a_flag_are_and_an_example(
    capsys: pytest.CaptureFixture[str],
) -> None:
    @cfn.config()
    def show(path: str, deep: bool = False) -> None:
        """Show.

        Example:
            prog show
                here

        Args:
            path: What to show.
        """

    assert cli.status({"show": show}, "prog", ["show", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:5] == ["usage: prog show PATH [--flag=value ...]", "", "Show.", "", EXAMPLE]
    assert "  --path=...  (required)      What to show." in lines
    assert cli.status({"show": show}, "prog", ["--help"]) == 0
    assert EXAMPLE in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("words", [["--version"], ["roll", "--version"]])
def test_version(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.status(COMMANDS, "prog", words) == 0
    assert capsys.readouterr().out == f"positronic-lightning {version('positronic-lightning')}\n"


@pytest.mark.parametrize(
    ("started", "name"),
    [
        (f"{MAIN}; main()", "positronic-storage"),
        (f"{MAIN}; import sys; sys.argv[0] = '/bin/positronic-x'; main()", "positronic-x"),
        (
            "import runpy; runpy.run_module('positronic.storage', {}, '__main__', True)",
            "python -m positronic.storage",
        ),
    ],
)
def test_errors_name_the_program_as_it_was_started(started: str, name: str) -> None:
    done = subprocess.run([sys.executable, "-c", started, "lss"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{name}: error: there is no command 'lss' (did you mean 'ls'?)")


PROGRAMS = [
    ["positronic.data_collection", "scripted"],
    ["positronic.importers", "robomimic"],
    ["positronic.inference.command", "sim"],
    ["positronic.inference.command", "open_loop"],
    ["positronic.vendors.lerobot.convert", "convert"],
    ["positronic.vendors.lerobot.train"],
    ["positronic.vendors.lerobot.server"],
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program[0])
def test_help_of_each_program_loads_nothing_heavy(program: list[str]) -> None:
    """Time is not measured here; what would cost it is: the libraries that take seconds to load."""
    code = f"""
import sys
from {program[0]} import main
sys.argv = ["prog", *{program[1:]!r}, "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
heavy = {{"torch", "lerobot", "lightning", "mujoco", "pyarrow", "av", "fastapi", "pandas"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "flags:" in done.stdout
    assert "\nexample: " in done.stdout


def test_beneath_a_dict_the_rest_of_a_flag_is_one_key(capsys: pytest.CaptureFixture[str]) -> None:
    @cfn.config(where={"a": 1})
    def ask(where: dict[str, object]) -> None:
        """Ask."""
        print(where)

    words = ["--where.eval.success=True", "--where.task=[b,c]"]
    assert cli.status(ask, "ask", words) == 0
    assert capsys.readouterr().out == "{'a': 1, 'task': ['b', 'c'], 'eval.success': True}\n"


def test_a_relative_path_is_no_config(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @cfn.config(dataset=COMMANDS["count"], name="")
    def ask(dataset: object, name: str) -> None:
        """Ask."""
        print(dataset, name)

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert cli.status(ask, "ask", ["--dataset=../raw", "--name=./x"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/raw ./x\n"
