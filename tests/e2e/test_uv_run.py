"""``uv run`` in a fresh checkout, as the founding document types it, and beside ``make``."""

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.positronic.inference.commands import expert_server

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]


class Checkout:
    """What git has of the working tree, in a directory of its own, and commands in it."""

    def __init__(self, root: Path, uv: str) -> None:
        self.root, self.uv = root, uv
        tracked = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
        )
        for name in tracked.stdout.rstrip("\0").split("\0"):
            if (ROOT / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, root / name)

    def __call__(self, *words: str, status: int = 0) -> str:
        unset = {"DISPLAY", "VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "PYTHONPATH"}
        kept = {name: value for name, value in os.environ.items() if name not in unset}
        done = subprocess.run(
            words,
            cwd=self.root,
            # That no Python is fetched for a test.
            env={"UV_PYTHON": str(Path(sys.executable).resolve()), **kept},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        out = done.stdout + done.stderr
        assert done.returncode == status, f"{' '.join(words)}\n{out[-3000:]}"
        return out

    def run(self, *words: str, status: int = 0) -> str:
        return self(self.uv, "run", *words, status=status)

    def packages(self) -> set[str]:
        found = (self.root / ".venv").glob("lib/python3*/site-packages/*.dist-info")
        return {path.name.removesuffix(".dist-info") for path in found}


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    uv = shutil.which("uv") or shutil.which("uv", path=ROOT / ".tools/uv/bin")
    if uv is None:
        pytest.skip("needs uv, which scripts/setup fetches when there is none")
    root = tmp_path / "checkout"
    root.mkdir()
    yield Checkout(root, uv)
    # 6 GB, where the cache of uv is on another file system.
    shutil.rmtree(root)


def test_the_documents_command_works_in_a_fresh_checkout(
    checkout: Checkout, tmp_path: Path
) -> None:
    raw = tmp_path / "inference_logs"
    with expert_server(0) as port:
        out = checkout.run(
            "positronic-inference",
            "sim",
            "--driver.simulation_time=20",
            "--driver.show_gui=True",
            f"--output_dir={raw}",
            "--policy=.remote",
            "--policy.host=localhost",
            f"--policy.port={port}",
        )
    assert "success rate 1/1" in out
    assert (raw / "report.html").is_file()
    # A laptop that rolls out fetches no PyTorch, and everything is what the pins say.
    project = tomllib.loads((checkout.root / "pyproject.toml").read_text())
    pins = project["tool"]["uv"]["constraint-dependencies"]
    packages = {name.replace("_", "-") for name in checkout.packages()}
    assert packages - {pin.replace("==", "-") for pin in pins} == {"positronic-lightning-0.1.0"}
    assert not any(name.startswith(("torch", "lerobot", "nvidia")) for name in packages)

    codec = "--dataset.codec=@positronic.vendors.lerobot.codecs.eepose_state"
    convert = ["convert", f"--dataset.dataset={raw}", codec, f"--output_dir={tmp_path / 'lerobot'}"]
    out = checkout.run("positronic-to-lerobot", *convert, "--fps=15", status=1)
    assert "uv run --extra train" in out
    assert "Traceback" not in out
    out = checkout.run("getiaction", "fit", "--config", "configs/lerobot_act.yaml", status=1)
    assert "uv run --extra train" in out
    assert "Traceback" not in out


def test_make_and_uv_run_share_an_environment(checkout: Checkout) -> None:
    checkout.run("positronic-inference", "--help")
    few = checkout.packages()
    checkout("scripts/setup")
    everything = checkout.packages()
    assert everything > few
    assert {name.partition("-")[0] for name in everything} > {"torch", "lerobot", "pytest"}

    checkout.run("positronic-inference", "--help")
    assert checkout.packages() == everything
    assert checkout("scripts/setup") == ""

    checkout(checkout.uv, "sync")
    assert checkout.packages() == few
    assert "ready after" in checkout("scripts/setup")
    assert checkout.packages() == everything
