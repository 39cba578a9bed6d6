"""``make demo`` in small: every stage with its real command, twice, and with other settings."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]


def demo(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "scripts/demo.py", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )


@pytest.mark.parametrize(("task", "obs"), [("stack_cubes", "state"), ("pick_place", "images")])
def test_demo_in_small(task: str, obs: str, tmp_path: Path) -> None:
    small = [f"--task={task}", f"--obs={obs}", "--episodes=3", "--steps=5", "--rollouts=2"]
    out = [f"--output_dir={tmp_path / 'a'}"]
    first = demo(*small, *out)
    assert first.returncode == 0, first.stderr[-3000:]
    assert "success rate " in first.stdout
    assert f"report: file://{tmp_path}/a/rollouts/report.html" in first.stdout
    report = (tmp_path / "a/rollouts/report.html").read_text()
    assert report.count("<video") == 2

    again = demo(*small, *out)
    assert again.returncode == 0
    assert again.stdout.count("already done") == 4
    assert "$" not in again.stdout

    other = demo(*small, *out, "--rollouts=3")
    assert other.returncode == 1
    assert "FRESH=1" in other.stderr
    assert "Traceback" not in other.stderr


def test_the_same_demo_twice_gives_the_same(tmp_path: Path) -> None:
    results = []
    for name in ("a", "b"):
        flags = ["--episodes=5", "--steps=60", "--rollouts=3", f"--output_dir={tmp_path / name}"]
        assert demo(*flags).returncode == 0
        result = json.loads((tmp_path / name / "rollouts/results.json").read_text())
        # What may differ between two runs (times, versions, paths) lies under this key.
        del result["run"]
        results.append(result)
    assert results[0] == results[1]
