"""Services in a terminal, in a pipe and without either; how they end, and what is left then."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from positronic.dataset import load_all_datasets
from positronic.vendors.lerobot import codecs
from tests.docker.caller import Caller, docker
from tests.positronic.vendors.lerobot.raw import record
from tests.positronic.vendors.lerobot.small_dataset import write_dataset
from tests.positronic.vendors.lerobot.small_policy import make_run

RECORD = (
    "positronic-data-collection scripted --cameras=none --output_dir=~/datasets/recorded --append"
)
CONVERT = (
    "positronic-to-lerobot convert --dataset.dataset=~/datasets/raw"
    " --dataset.codec=@positronic.vendors.lerobot.codecs.eepose_absolute"
    " --output_dir=~/datasets/converted --fps=15"
)
TRAIN = (
    "lerobot-train --dataset_root=~/datasets/small --output_dir=~/checkpoints --run_name=run"
    " --policy=.act_state --batch_size=4 --steps=1000000"
)
ROLL_OUT = (
    "positronic-inference sim --output_dir=~/datasets/rollouts --driver.num_iterations=1000"
    " --cameras=none --policy=.act_absolute"
    " --policy.checkpoints_dir=~/checkpoints/served"
)
RAW_EPISODES = 150


class Terminal:
    """A tmux window of 120 columns in which the caller's shell runs in ``docker/``."""

    def __init__(self, caller: Caller, folder: Path) -> None:
        self._tmux = ["tmux", "-f", "/dev/null", "-S", str(folder / "tmux")]
        self._sent = folder / "sent"
        shell = caller.words("PS1='> ' exec bash --norc --noprofile")
        environment = caller.environment()
        start = ["new-session", "-d", "-x", "120", "-y", "50", *shell]
        subprocess.run([*self._tmux, *start], env=environment, check=True)
        self._do("pipe-pane", f"cat > {self._sent}")

    def _do(self, *words: str) -> str:
        done = subprocess.run([*self._tmux, *words], capture_output=True, text=True, check=True)
        return done.stdout

    def type(self, line: str) -> None:
        """Type a line and Enter, into an empty window; the status is shown in the end."""
        self._do("send-keys", f"clear; {line}; echo status=$?", "Enter")

    def press(self, key: str) -> None:
        """Press a key, by tmux's name for it."""
        self._do("send-keys", key)

    @property
    def screen(self) -> str:
        """What is to be seen, lines that were broken at the edge in one."""
        return self._do("capture-pane", "-p", "-J")

    @property
    def sent(self) -> bytes:
        """All bytes that the terminal has received."""
        return self._sent.read_bytes()

    def see(self, pattern: str) -> re.Match[str]:
        """Wait until something is to be seen."""
        wait_for(lambda: re.search(pattern, self.screen), lambda: f"{pattern} in\n{self.screen}")
        found = re.search(pattern, self.screen)
        assert found
        return found

    def end(self) -> None:
        """Close the window."""
        subprocess.run([*self._tmux, "kill-server"], check=False)


def wait_for(
    condition: Callable[[], object], what: Callable[[], str], seconds: float = 120
) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what()}"
        time.sleep(0.05)


@pytest.fixture
def terminal(caller: Caller, tmp_path: Path) -> Iterator[Terminal]:
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed (apt-get install tmux)")
    terminal = Terminal(caller, tmp_path)
    yield terminal
    terminal.end()


class Piped:
    """A service whose output goes to a file."""

    def __init__(self, caller: Caller, words: str, log: Path) -> None:
        self._caller, self._service, self._log = caller, words.split()[0], log
        # In the shell's stead, so that its pid is that of `docker`.
        self._process = caller.start(f"exec docker compose run --rm {words}", log)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for something while it runs."""

        def met() -> object:
            assert self._process.poll() is None, self.log
            return condition()

        wait_for(met, lambda: self.log)

    def stop(self) -> int:
        """``docker stop``; the status of ``docker compose run``."""
        (container,) = self._caller.containers(self._service)
        docker("stop", container)
        return self._process.wait(timeout=60)

    def interrupt(self) -> int:
        """SIGINT for Compose, a plugin that ``docker`` runs; the status of the latter."""
        find = ["pgrep", "-P", str(self._process.pid), "-f", "compose"]
        (pid,) = subprocess.run(find, capture_output=True, text=True, check=True).stdout.split()
        os.kill(int(pid), signal.SIGINT)
        return self._process.wait(timeout=60)


def is_plain(text: str) -> bool:
    """Whether no line is drawn over and nothing is coloured."""
    return "\r" not in text and "\x1b" not in text


def bars(screen: str, name: str) -> list[str]:
    return [line for line in screen.splitlines() if line.startswith(f"{name}:")]


def test_statuses_and_standard_input(caller: Caller, images: None) -> None:
    run = "docker compose run --rm"
    assert caller.run(f"{run} positronic-to-lerobot info --dataset_root=~/nothing").status == 1
    assert caller.run(f"{run} positronic-to-lerobot inform").status == 2
    assert caller.run(f"{run} positronic sh -c 'exit 3'").status == 3
    assert caller.ok(f"echo hello | {run} positronic cat") == "hello\n"
    assert caller.ok(f"{run} positronic cat <&-") == ""
    assert caller.containers("positronic", every=True) == []


def test_a_terminal(caller: Caller, images: None, terminal: Terminal) -> None:
    terminal.type("docker compose run --rm positronic sh -c 'test -t 0 && read line; echo =$line'")
    wait_for(lambda: caller.containers("positronic"), lambda: terminal.screen)
    terminal.press("hello")
    terminal.press("Enter")
    terminal.see("=hello\nstatus=0")


def test_recording(caller: Caller, images: None, terminal: Terminal, tmp_path: Path) -> None:
    terminal.type(f"docker compose run --rm {RECORD} --episodes=1000")
    terminal.see("recording: .* [1-9][0-9]*/1000 ")
    assert len(bars(terminal.screen, "recording")) == 1
    assert terminal.sent.count(b"\rrecording:") > 1
    terminal.press("C-c")
    assert terminal.see(r"status=(\d+)")[1] == "130"

    recorded = caller.home / "datasets/recorded"
    kept = len(load_all_datasets(recorded))
    piped = Piped(caller, f"{RECORD} --episodes=1000", tmp_path / "log")
    piped.until(lambda: len(load_all_datasets(recorded)) > kept)
    assert piped.stop() == 128 + signal.SIGTERM
    assert is_plain(piped.log)
    assert len(load_all_datasets(recorded)) > kept
    caller.ok(f"docker compose run --rm {RECORD} --episodes=1")
    assert caller.containers("positronic-data-collection", every=True) == []


def test_converting(caller: Caller, images: None, terminal: Terminal, tmp_path: Path) -> None:
    for index in range(RAW_EPISODES):
        record(caller.home / "datasets/raw", index)
    caller.own(caller.home / "datasets")
    kept = caller.home / "datasets/.converted.partial/episodes"

    terminal.type(f"docker compose run --rm {CONVERT}")
    wait_for(lambda: (kept / "000000").exists(), lambda: terminal.screen)
    # The bar comes when LeRobot is loaded, while workers encode already.
    assert f"converting {RAW_EPISODES} episodes" in terminal.screen
    terminal.press("C-c")
    assert terminal.see(r"status=(\d+)")[1] == "130"
    assert "the same command with --resume=True continues" in terminal.screen

    before = len(list(kept.glob("0?????")))
    assert 0 < before < RAW_EPISODES
    piped = Piped(caller, f"{CONVERT} --resume=True", tmp_path / "log")
    piped.until(lambda: len(list(kept.glob("0?????"))) > before)
    assert piped.stop() == 128 + signal.SIGTERM
    assert is_plain(piped.log)
    assert not (caller.home / "datasets/converted").exists()

    printed = caller.ok(f"docker compose run --rm {CONVERT} --resume=True")
    assert is_plain(printed)
    assert f"converting: 100% {RAW_EPISODES}/{RAW_EPISODES} " in printed
    assert f"converted {RAW_EPISODES} episodes" in printed
    assert not kept.exists()
    assert caller.containers("positronic-to-lerobot", every=True) == []


def test_training(caller: Caller, images: None, terminal: Terminal, tmp_path: Path) -> None:
    write_dataset(caller.home / "datasets/small")
    caller.own(caller.home / "datasets")
    terminal.type(f"docker compose run --rm {TRAIN}")
    terminal.see("training: .* [1-9][0-9]*/1000000 ")
    assert len(bars(terminal.screen, "training")) == 1
    assert terminal.sent.count(b"\rtraining:") > 1
    terminal.press("C-c")
    assert terminal.see(r"status=(\d+)")[1] == "130"
    first = int(terminal.see(r"ended after step (\d+), saved as .* --resume=True goes on")[1])

    piped = Piped(caller, f"{TRAIN} --resume=True --log_freq=1", tmp_path / "log")
    piped.until(lambda: "/1000000 " in piped.log)
    assert piped.interrupt() == 128 + signal.SIGINT
    found = re.search(r"SIGINT: ended after step (\d+), saved", piped.log)
    assert found, piped.log
    assert int(found[1]) > first
    assert is_plain(piped.log)
    assert caller.containers("lerobot-train", every=True) == []


def test_serving_and_rolling_out(
    caller: Caller, images: None, terminal: Terminal, tmp_path: Path
) -> None:
    """As outside of containers: a server has done its duty, rollouts were interrupted."""
    make_run(caller.home / "checkpoints/served", codecs.eepose_state.instantiate(), steps=(2,))
    caller.own(caller.home / "checkpoints")
    terminal.type("docker compose run --rm lerobot-server --checkpoints_dir=~/checkpoints/served")
    terminal.see("serving act 000002")
    terminal.press("C-c")
    assert terminal.see(r"status=(\d+)")[1] == "0"

    episodes = caller.home / "datasets/rollouts"
    piped = Piped(caller, ROLL_OUT, tmp_path / "log")
    piped.until(lambda: "1/1000" in piped.log)
    assert piped.stop() == 128 + signal.SIGTERM
    assert is_plain(piped.log)
    assert (episodes / "report.html").is_file()
    assert len(load_all_datasets(episodes)) > 0
    assert caller.containers("positronic-inference", every=True) == []
