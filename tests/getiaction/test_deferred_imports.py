import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from getiaction.policies.lerobot import LeRobotPolicy
from tests.getiaction import deferred
from tests.getiaction.datasets import write
from tests.getiaction.policies.lerobot import small
from tests.getiaction.train.runs import SMALL

ONLY_A_PROGRAM = """
import sys
from getiaction import cli
before = list(sys.meta_path)
assert cli.main(["--version"]) == 0
assert sys.meta_path == before
sys.argv = ["getiaction", "--version"]
assert cli.main() == 0
assert type(sys.meta_path[0]).__name__ == "_Finder"
"""


def program(*words: str | Path) -> tuple[list[str], dict[str, Any]]:
    """What a program with deferred imports says on the way, and what it finds."""
    command = [sys.executable, "-m", "tests.getiaction.deferred", *words]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    *said, found = ended.stdout.splitlines()
    return said, json.loads(found)


@pytest.mark.e2e
def test_policies_are_the_same(state_root: Path, tmp_path: Path) -> None:
    act = LeRobotPolicy("act", **SMALL).create(small.metadata(state_root))
    act.save_pretrained(tmp_path / "light")
    shape: dict[str, Any] = {"cameras": ("top",), "size": 48, "reward": True}
    root = write(tmp_path / "data", [9, 8], environment_state=False, **shape)
    for name in small.NAMES:
        small.make(root, name).save_pretrained(tmp_path / name)
    said, found = program("policies", tmp_path / "light", root, tmp_path)
    assert {"heavy []", "others False", "compiler False"} <= set(said)
    assert found == deferred.policies(root, tmp_path)


@pytest.mark.e2e
def test_every_name_leads_to_the_same() -> None:
    _, found = program("names")
    plain = deferred.names()
    assert found == plain
    assert len(plain) > 200


def test_only_a_program_defers() -> None:
    """Whoever calls a main function with arguments of their own keeps LeRobot as it is."""
    subprocess.run([sys.executable, "-c", ONLY_A_PROGRAM], check=True, capture_output=True)
