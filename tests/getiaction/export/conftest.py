from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from getiaction.export import InferenceModel, export
from getiaction.policies.lerobot import LeRobotPolicy
from tests.getiaction.export.policies import CAMERAS, act


@pytest.fixture(scope="session")
def image_policy() -> LeRobotPolicy:
    return act(CAMERAS, n_action_steps=3)


@pytest.fixture(scope="session")
def exported(
    tmp_path_factory: pytest.TempPathFactory, image_policy: LeRobotPolicy
) -> Callable[[str], Path]:
    """Export the policy for a backend, once. The graph for torch takes uint8 images."""
    root = tmp_path_factory.mktemp("exports")

    def make(backend: str) -> Path:
        image_dtype = "uint8" if backend == "torch" else "float32"
        return export(image_policy, root / backend, backend, image_dtype=image_dtype, fps=15)

    return cache(make)


@pytest.fixture(scope="package")  # runtimes with all their graphs, of no use to other tests
def loaded(exported: Callable[[str], Path]) -> Callable[[str], InferenceModel]:
    return cache(lambda backend: InferenceModel(exported(backend), backend))


@pytest.fixture(scope="session")
def state_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cheapest export there is."""
    return export(act(), tmp_path_factory.mktemp("exports") / "state", "torch")
