"""Each command's last line, pasted into a shell, from the first recording to a comparison."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents import smaller
from tests.waiting import line_of

pytestmark = pytest.mark.e2e


def paste(command: str, home: Path) -> str:
    """Run a line as a person would who has not activated the environment; return what it says."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=home,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout + done.stderr


def following(said: str, label: str = "next") -> str:
    (line,) = re.findall(rf"^{label}: (.*)$", said, re.MULTILINE)
    return smaller(str(line))


def test_the_last_line_of_each_command_is_the_next_command(tmp_path: Path) -> None:
    program = Path(sys.executable).parent / "positronic-data-collection"
    record = f"{program} scripted --episodes=2 --output_dir='my demos'"
    converted = paste(following(paste(record, tmp_path)), tmp_path)
    assert f"\ndataset: {tmp_path}/my demos-lerobot\n" in converted
    trained = paste(following(converted), tmp_path)
    run = f"{tmp_path}/checkpoints/my demos-lerobot"
    assert f"\ncheckpoint: {run}/checkpoints/last\n" in trained
    assert f"tensorboard '--logdir={run}/tensorboard'" in following(trained, "curves")
    assert list(Path(run, "tensorboard").iterdir())

    with subprocess.Popen(
        ["bash", "-c", f"exec {following(trained)} --port=0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            while " connect: " not in (line := line_of(server.stdout, "the server's address", 240)):
                pass
            connect = line.partition(" connect: ")[2].strip()
            played = paste(f"{connect} --driver.simulation_time=1", tmp_path)
            assert f"\nreport: file://{tmp_path}/rollouts/report.html\n" in played
            compared = paste(f"{following(played)} --driver.simulation_time=1", tmp_path)
            page = tmp_path / "rollouts-compared/comparison.html"
            assert f"\ncomparison: {page.as_uri()}\n" in compared
            assert page.is_file()
        finally:
            server.send_signal(signal.SIGINT)
            assert server.wait(60) == 0
