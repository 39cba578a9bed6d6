import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.getiaction.datasets import write
from tests.getiaction.train.runs import STEPS, Result, train_natively


@pytest.fixture(scope="session")
def policies_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One square camera and a reward, so that each of LeRobot's small policies can be trained.

    76 frames: 13 steps an epoch, the last of 4 samples; 7 steps with seven frames dropped each.
    """
    root = tmp_path_factory.mktemp("policies") / "dataset"
    lengths = [11, 17, 15, 14, 19]
    return write(root, lengths, cameras=("top",), size=48, reward=True, environment_state=False)


@pytest.fixture(scope="session")
def native_run(
    policies_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Result]:
    """LeRobot's own run of a policy, made once for all tests in this process."""

    @functools.cache
    def run(policy_name: str) -> Result:
        with pytest.MonkeyPatch.context() as patch:
            folder = tmp_path_factory.mktemp("native") / policy_name
            return train_natively(
                policies_root, folder, patch, steps=STEPS, policy_name=policy_name
            )

    return run
