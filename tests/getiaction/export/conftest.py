from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from getiaction.export import export
from getiaction.policies.lerobot import LeRobotPolicy
from tests.getiaction.export.policies import CAMERAS, act


@pytest.fixture(scope="session")
def image_policy() -> LeRobotPolicy:
    return act(CAMERAS, n_action_steps=3)


@pytest.fixture(scope="session")
def exported(
    tmp_path_factory: pytest.TempPathFactory, image_policy: LeRobotPolicy
) -> Callable[[str], Path]:
    """Export the policy for a backend, once. Take a copy to damage it."""
    root = tmp_path_factory.mktemp("exports")
    return cache(lambda backend: export(image_policy, root / backend, backend, fps=15))


@pytest.fixture(scope="session")
def state_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cheapest export there is."""
    return export(act(), tmp_path_factory.mktemp("exports") / "state", "torch")
