import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lerobot.configs import PreTrainedConfig

from getiaction.errors import GetiactionError
from getiaction.policies.lerobot import (
    LeRobotPolicy,
    is_available,
    list_available_policies,
    registry,
)

# Its type stub knows LeRobot's own policies only.
offered: Any = importlib.import_module("getiaction.policies.lerobot")

PLUGIN = """
from dataclasses import dataclass
from lerobot.configs import PreTrainedConfig
from lerobot.policies import ACTConfig

@PreTrainedConfig.register_subclass("toy")
@dataclass
class ToyConfig(ACTConfig):
    toys: int = 3
"""
WITHOUT_LEROBOT = """
import sys
sys.modules["lerobot"] = None
import getiaction.policies.lerobot as policies
assert policies.is_available() is False
assert policies.list_available_policies() == []
try:
    from getiaction.policies.lerobot import ACT
except ImportError as error:
    assert "pip install 'lerobot[training]'" in str(error), error
else:
    raise AssertionError
"""

WITHOUT_TRANSFORMERS = """
import importlib.util
import sys
find = importlib.util.find_spec  # LeRobot asks it; other packages may go on using transformers
importlib.util.find_spec = lambda name, *rest: None if name == "transformers" else find(name, *rest)
from getiaction.errors import GetiactionError
from getiaction.policies.lerobot import LeRobotPolicy
from pathlib import Path
from tests.getiaction.policies.lerobot.small import metadata
for name in sys.argv[2:]:
    try:
        LeRobotPolicy(name).create(metadata(Path(sys.argv[1])))
    except GetiactionError as error:
        print(error)
"""


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("ppo", "'ppo' has never been a LeRobot policy; it offers: act, diffusion"),
        ("ddpg", "never"),
        ("dqn", "never"),
        ("ibc", "never"),
        ("sac", "left LeRobot's policies in 0.6.0; its actor is 'gaussian_actor'.*lerobot.rl"),
        ("pi0fast", "is now 'pi0_fast'"),
        ("ACT", "did you mean 'act'"),
        ("gaussian_actor", "cannot be trained from a dataset.*lerobot.rl"),
    ],
)
def test_names_that_cannot_be_trained_are_refused_at_once(name: str, why: str) -> None:
    with pytest.raises(GetiactionError, match=why) as caught:
        LeRobotPolicy(name)
    assert "\n" not in str(caught.value)


def test_what_is_offered_is_what_lerobot_registers() -> None:
    assert is_available()
    offered = list_available_policies()
    assert offered == sorted(PreTrainedConfig.get_known_choices())
    assert {"act", "diffusion", "vqbet", "tdmpc", "smolvla", "pi0"} <= set(offered)


def test_a_missing_package_is_named_with_its_extra(camera_root: Path) -> None:
    extras = {
        "pi0": "pi",
        "pi0_fast": "pi",
        "smolvla": "smolvla",
        "multi_task_dit": "multi-task-dit",
        "wall_x": "wallx",
        "xvla": "xvla",
        "vla_jepa": "vla-jepa",
        "groot": "groot",
        "eo1": "eo1",  # its config alone needs it
    }
    told = subprocess.run(
        [sys.executable, "-c", WITHOUT_TRANSFORMERS, str(camera_root), *extras],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for (name, extra), line in zip(extras.items(), told, strict=True):
        assert re.search(rf"'{name}' needs 'transformers'.*'lerobot\[{extra}\]'$", line), line


def test_plugins_are_offered_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "lerobot_policy_toy"
    package.mkdir()
    (package / "__init__.py").write_text("from .configuration_toy import ToyConfig\n")
    (package / "configuration_toy.py").write_text(PLUGIN)
    info = tmp_path / "lerobot_policy_toy-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: lerobot_policy_toy\nVersion: 0.1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    registry._load_plugins.cache_clear()
    try:
        toy = offered.Toy
        assert issubclass(toy, LeRobotPolicy)
        assert inspect.signature(toy).parameters["toys"].default == 3
        assert toy(toys=4).config == LeRobotPolicy("toy", toys=4).config
        assert "toy" in list_available_policies()
    finally:
        PreTrainedConfig._choice_registry.pop("toy", None)
        vars(offered).pop("Toy", None)


def test_an_unknown_class() -> None:
    with pytest.raises(AttributeError, match="no 'PPO'; its policies: ACT, Diffusion"):
        _ = offered.PPO


def test_without_lerobot_the_package_imports() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_LEROBOT], check=True)
