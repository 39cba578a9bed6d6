from pathlib import Path

import pytest

from tests.getiaction.datasets import write


@pytest.fixture(scope="session")
def camera_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One square camera and a reward, so that each of LeRobot's small policies can be made."""
    root = tmp_path_factory.mktemp("camera") / "dataset"
    return write(root, [9, 8], cameras=("top",), size=48, reward=True, environment_state=False)


@pytest.fixture(scope="session")
def reward_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """No camera: LeRobot's own TD-MPC cannot act with one that is not ``observation.image``."""
    return write(tmp_path_factory.mktemp("reward") / "dataset", [9, 8], reward=True)
