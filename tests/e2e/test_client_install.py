"""The client installs and imports without torch, LeRobot, Lightning or MuJoCo."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
CLIENT = ("positronic.offboard.client", "positronic.policy", "positronic.codec")


def test_the_base_install_is_a_client(tmp_path: Path) -> None:
    uv = shutil.which("uv") or shutil.which("uv", path=ROOT / ".tools/uv/bin")
    if uv is None:
        pytest.skip("needs uv, which scripts/setup fetches when there is none")
    python = tmp_path / "venv/bin/python"
    for command in (
        [uv, "venv", "--quiet", "--python", sys.executable, str(tmp_path / "venv")],
        [uv, "pip", "install", "--quiet", "--python", str(python), str(ROOT)],
        [str(python), "-c", f"import {', '.join(CLIENT)}"],
    ):
        # For uv, the pins are those of the directory that it runs in.
        cwd = ROOT if uv in command else tmp_path
        subprocess.run(command, check=True, cwd=cwd, timeout=600)
    packages = {path.name for path in tmp_path.glob("venv/lib/*/site-packages/*")}
    assert "msgpack" in packages
    assert not packages & {"torch", "lerobot", "lightning", "mujoco", "gymnasium", "pyarrow"}

    lacks = subprocess.run(
        [str(python.parent / "positronic-data-collection"), "scripted", "--output_dir=x"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert lacks.returncode == 1
    assert "positronic-lightning[sim]" in lacks.stderr
    assert "Traceback" not in lacks.stderr
