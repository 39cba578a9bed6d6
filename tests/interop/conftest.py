"""The environments of the public clients, and the real server that they are let loose on.

`scripts/public_clients` makes the environments. The tests run where they are there already, or
where POSITRONIC_PUBLIC=1 lets the tests make them (2.4 GB); POSITRONIC_PUBLIC=0 leaves them out.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from positronic.vendors.lerobot import codecs
from tests.positronic.vendors.lerobot.small_policy import make_run, observation

ROOT = Path(__file__).parents[2]
CLIENTS = Path(__file__).parent / "clients"

Public = Callable[[str], Path]


@pytest.fixture(scope="session")
def public() -> Public:
    """Find an environment by its name; gives its ``bin`` folder."""
    wanted = os.environ.get("POSITRONIC_PUBLIC")
    root = ROOT / os.environ.get("POSITRONIC_PUBLIC_DIR", ".cache/public")
    if wanted == "0" or not (wanted or root.exists()):
        pytest.skip("scripts/public_clients has not made the public clients (2.4 GB)")
    made = subprocess.run(
        [ROOT / "scripts" / "public_clients"], capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        pytest.skip(f"the public clients cannot be made: {made.stderr.strip().splitlines()[-1]}")
    return lambda name: root / name / "bin"


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ACT with two cameras, at two steps."""
    return make_run(
        tmp_path_factory.mktemp("runs") / "stacking", codecs.eepose_absolute(image_size=(64, 64))
    )


@pytest.fixture(scope="session")
def obs() -> dict[str, Any]:
    """One observation, with a camera more than the policy looks at, as public clients send it."""
    found = observation()
    return {**found, "image.agent_view": found["image.wrist"][::-1].copy()}


@pytest.fixture(scope="session")
def obs_file(obs: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("observation") / "observation.npz"
    np.savez(path, **obs)
    return path


class Server:
    """``python -m positronic.vendors.lerobot.server``, ready."""

    def __init__(self, run: Path) -> None:
        command = ("-m", "positronic.vendors.lerobot.server", f"--checkpoints_dir={run}")
        self.process = subprocess.Popen(
            [sys.executable, *command, "--port=0", "--openpi_port=0"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        said = self._until_serving()
        self.openpi_port = self._port(r"openpi's clients connect to .*:(\d+)", said)
        self.port = self._port(r"serving act 020000 on http://.*:(\d+)", said)

    def _until_serving(self) -> str:
        assert self.process.stdout is not None
        said = ""
        for line in self.process.stdout:
            said += line
            if " serving " in line:
                break
        return said

    def _port(self, pattern: str, said: str) -> int:
        match = re.search(pattern, said)
        assert match, f"the server said {said!r}"
        return int(match[1])

    def stop(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=60)


@pytest.fixture(scope="session")
def server(run: Path) -> Iterator[Server]:
    server = Server(run)
    yield server
    server.stop()


def ask(python: Path, script: str, *arguments: object) -> dict[str, Any]:
    """Run one of the scripts in ``clients`` and read what it prints."""
    # Away from this directory and its import path, so that it cannot find our own package.
    done = subprocess.run(
        [str(python), "-I", str(CLIENTS / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found
