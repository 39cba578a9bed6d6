from pathlib import Path

import pytest

from tests.getiaction.datasets import write


@pytest.fixture(scope="session")
def state_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("state") / "dataset", [9, 14, 11])


@pytest.fixture(scope="session")
def image_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images") / "dataset"
    return write(root, [9, 12, 7], cameras=("left", "side"))
